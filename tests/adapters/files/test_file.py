"""Reading files: the right values for valid files, and one refusal for each way in which a file can be invalid."""

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import save_file

from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import check_beginning, read_file
from tests.adapter_files import message_of, result_or_message, write_bytes, write_tensors

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def header_of(**entries: Any) -> bytes:
    return json.dumps(entries).encode()


def refusal(path: Path) -> str:
    return message_of(AdapterError, lambda: read_file(path))


def test_what_the_safetensors_library_writes_is_read(tmp_path: Path) -> None:
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([0.5, -2], np.float16),
        "c": np.array(7),
    }
    save_file(tensors, tmp_path / "x.safetensors", {"k": "v"})
    file = read_file(tmp_path / "x.safetensors")
    assert {name: tensor.array.tolist() for name, tensor in file.tensors.items()} == {
        name: array.tolist() for name, array in tensors.items()
    }
    assert file.metadata == {"k": "v"}
    assert file.size == (tmp_path / "x.safetensors").stat().st_size


def test_views_are_read_only_and_not_copies(tmp_path: Path) -> None:
    file = read_file(write_tensors(tmp_path / "x", {"a": ("F16", np.ones((4, 4), np.float16))}))
    array = file.tensors["a"].array
    assert not array.flags.owndata
    assert not array.flags.writeable
    assert np.shares_memory(array, file.tensors["a"].array)


def test_a_tensor_that_is_not_aligned_is_copied(tmp_path: Path) -> None:
    tensors = {"odd": ("U8", np.array([1], np.uint8)), "a": ("F32", np.array([1.5, -2], np.float32))}
    array = read_file(write_tensors(tmp_path / "x", tensors)).tensors["a"].array
    assert array.flags.aligned
    assert array.tolist() == [1.5, -2]


def test_every_float16_becomes_the_same_number(tmp_path: Path) -> None:
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    file = read_file(write_tensors(tmp_path / "x", {"a": ("F16", values)}))
    np.testing.assert_array_equal(file.tensors["a"].float32(), values.astype(np.float32))


def test_every_bfloat16_becomes_the_same_number(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    bits = np.arange(2**16, dtype=np.uint16)
    file = read_file(write_tensors(tmp_path / "x", {"a": ("BF16", bits)}))
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(file.tensors["a"].float32(), expected)


@pytest.mark.parametrize(("dtype", "theirs"), [("F8_E4M3", "float8_e4m3fn"), ("F8_E5M2", "float8_e5m2")])
def test_every_8_bit_float_becomes_the_same_number(tmp_path: Path, dtype: str, theirs: str) -> None:
    torch = pytest.importorskip("torch")
    bits = np.arange(2**8, dtype=np.uint8)
    tensor = read_file(write_tensors(tmp_path / "x", {"a": (dtype, bits)})).tensors["a"]
    expected = torch.from_numpy(bits).view(getattr(torch, theirs)).float().numpy()
    np.testing.assert_array_equal(tensor.float32(), expected, strict=True)
    np.testing.assert_array_equal(tensor.raw().astype(np.float32), expected)
    assert tensor.raw().dtype == np.float16


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_is_finite_of_every_8_bit_float(tmp_path: Path, dtype: str) -> None:
    bits = np.arange(2**8, dtype=np.uint8)
    file = read_file(write_tensors(tmp_path / "x", {str(bit): (dtype, bits[bit : bit + 1]) for bit in range(2**8)}))
    for tensor in file.tensors.values():
        assert tensor.is_finite() == np.isfinite(tensor.float32()).all()


@pytest.mark.parametrize("dtype", ["F16", "F32", "F64"])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_detected(tmp_path: Path, dtype: str, bad: float) -> None:
    width = {"F16": np.float16, "F32": np.float32, "F64": np.float64}[dtype]
    good = np.array([np.finfo(width).max, np.finfo(width).min, -0.0, np.finfo(width).smallest_subnormal], width)
    assert read_file(write_tensors(tmp_path / "x", {"a": (dtype, good)})).tensors["a"].is_finite()
    assert (
        not read_file(write_tensors(tmp_path / "y", {"a": (dtype, np.append(good, width(bad)))}))
        .tensors["a"]
        .is_finite()
    )


def test_is_finite_of_every_bfloat16(tmp_path: Path) -> None:
    for half in np.arange(2**16, dtype=np.uint16).reshape(2, -1):
        path = write_tensors(tmp_path / f"x{half[0]}", {str(bits): ("BF16", bits.reshape(1)) for bits in half})
        finite = [tensor.is_finite() for tensor in read_file(path).tensors.values()]
        np.testing.assert_array_equal(finite, (half & 0x7F80) != 0x7F80)


def test_empty_tensors_and_scalars(tmp_path: Path) -> None:
    tensors = {"e": ("F32", np.empty((0, 5), "<f4")), "s": ("F32", np.full((), 3, "<f4"))}
    file = read_file(write_tensors(tmp_path / "x", tensors))
    assert file.tensors["e"].array.shape == (0, 5)
    assert file.tensors["s"].array.shape == ()
    assert file.tensors["e"].is_finite()


def test_the_file_may_be_replaced_while_in_use(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "x", {"a": ("F32", np.ones(4, np.float32))})
    file = read_file(path)
    os.replace(write_tensors(tmp_path / "y", {"a": ("F32", np.zeros(4, np.float32))}), path)
    assert file.tensors["a"].array.tolist() == [1, 1, 1, 1]


REFUSALS: list[tuple[bytes | tuple[bytes, bytes], str]] = [
    (b"", "x.safetensors: not a safetensors file: 0 bytes long, the header alone needs 8"),
    (b"1234567", "x.safetensors: not a safetensors file: 7 bytes long, the header alone needs 8"),
    (
        b"<!DOCTYPE html><html>404</html>",
        "x.safetensors: not a safetensors file: it is a web page, so the download failed",
    ),
    (b'{"error": "not found"}', "x.safetensors: not a safetensors file: it is JSON text, so the download failed"),
    (
        b"version https://git-lfs.github.com/spec/v1\n",
        "x.safetensors: not a safetensors file: it is a Git LFS pointer: fetch the real file with git lfs pull",
    ),
    (
        b"PK\x03\x04" + b"x" * 60,
        "x.safetensors: not a safetensors file: it is a torch pickle or a zip: convert it to safetensors",
    ),
    (b"\x80\x02}q\x00X\x04\x00", "x.safetensors: not a safetensors file: it is a pickle: convert it to safetensors"),
    (b"\xff" * 64, "x.safetensors: not a safetensors file"),
    ((100_000_001).to_bytes(8, "little") + b"{}", "x.safetensors: not a safetensors file"),
    (
        (1000).to_bytes(8, "little") + b'{"a":',
        "x.safetensors: truncated: the header ends at byte 1008, the file at 13; download it again",
    ),
    ((b'{"a":', b""), "x.safetensors: not a safetensors file: the header is not valid JSON"),
    ((b'{"a": "\xff"}', b""), "x.safetensors: not a safetensors file: the header is not valid JSON"),
    ((b'{"\\ud800": 1}', b""), "x.safetensors: not a safetensors file: the header is not valid JSON"),
    ((b'{"a":' * 100_000, b""), "x.safetensors: not a safetensors file: the header is not valid JSON"),
    (
        (b'{"a": {"shape": [' + b"1" * 5000 + b"]}}", b""),
        "x.safetensors: not a safetensors file: the header is not valid JSON",
    ),
    (
        (b'{"a": {"shape": ' + b"[" * 1500 + b"}}", b""),
        "x.safetensors: not a safetensors file: the header is not valid JSON",
    ),
    (
        (b'{"a": {"dtype": "U8", "dtype": "U8"}}', b""),
        "x.safetensors: not a safetensors file: the header is not valid JSON",
    ),
    ((header_of(a=ENTRY) + b"}", bytes(8)), "x.safetensors: not a safetensors file: the header is not valid JSON"),
    ((b"{a: 1}", b""), "x.safetensors: not a safetensors file: the header is not valid JSON"),
    ((b"{}", b""), "x.safetensors: the file has no tensors"),
    ((header_of(__metadata__={"a": "b"}), b""), "x.safetensors: the file has no tensors"),
    ((header_of(__metadata__=[]), b""), "x.safetensors: the header's __metadata__ is not an object"),
    ((header_of(__metadata__={"a": 1}), b""), "x.safetensors: metadata a is not text"),
    ((f'{{"a": {json.dumps(ENTRY)}, "a": 2}}'.encode(), bytes(8)), "x.safetensors: the header names a twice"),
    (
        (header_of(__metadata__={str(number): "" for number in range(10_001)}), b""),
        "x.safetensors: more than 10000 entries of metadata, which no trainer writes",
    ),
    ((b'{"__metadata__": {"k": "", "k": ""}}', b""), "x.safetensors: the header names k twice"),
    ((header_of(a=7), b""), "x.safetensors: tensor a: the header entry must have dtype, shape and data_offsets"),
    (
        (header_of(a={"dtype": "F32", "shape": [2]}), b""),
        "x.safetensors: tensor a: the header entry must have dtype, shape and data_offsets",
    ),
    (
        (header_of(a=ENTRY | {"more": 1}), b""),
        "x.safetensors: tensor a: the header entry must have dtype, shape and data_offsets",
    ),
    ((header_of(a=ENTRY | {"dtype": "F128"}), bytes(8)), "x.safetensors: tensor a: unknown dtype F128"),
    ((header_of(a=ENTRY | {"dtype": ["F32"]}), bytes(8)), "x.safetensors: tensor a: unknown dtype ['F32']"),
    ((header_of(a=ENTRY | {"shape": 2}), bytes(8)), "x.safetensors: tensor a: the shape must be a list of sizes"),
    ((header_of(a=ENTRY | {"shape": [-2]}), bytes(8)), "x.safetensors: tensor a: the shape must be a list of sizes"),
    (
        (header_of(a=ENTRY | {"shape": [True, 2]}), bytes(8)),
        "x.safetensors: tensor a: the shape must be a list of sizes",
    ),
    ((header_of(a=ENTRY | {"shape": [2.0]}), bytes(8)), "x.safetensors: tensor a: the shape must be a list of sizes"),
    (
        (header_of(a=ENTRY | {"shape": [0, 2**62, 2**62]}), b""),
        "x.safetensors: tensor a: impossible shape [0, 4611686018427387904, 4611686018427387904]",
    ),
    (
        (header_of(a=ENTRY | {"shape": [1] * 17}), b""),
        "x.safetensors: tensor a: impossible shape [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]",
    ),
    ((header_of(a=ENTRY | {"data_offsets": [0]}), b""), "x.safetensors: tensor a: data_offsets must be two offsets"),
    (
        (header_of(a=ENTRY | {"data_offsets": [-8, 0]}), b""),
        "x.safetensors: tensor a: data_offsets must be two offsets",
    ),
    (
        (header_of(a=ENTRY), bytes(7)),
        "x.safetensors: truncated: tensor a ends at byte 8 of the data, the data at 7; download it again",
    ),
    (
        (header_of(a=ENTRY | {"data_offsets": [0, 4]}), bytes(8)),
        "x.safetensors: tensor a: F32 [2] takes 8 bytes, its data_offsets give 4",
    ),
    (
        (header_of(a=ENTRY | {"data_offsets": [8, 0]}), bytes(8)),
        "x.safetensors: tensor a: F32 [2] takes 8 bytes, its data_offsets give -8",
    ),
    ((header_of(a=ENTRY, b=ENTRY), bytes(8)), "x.safetensors: tensor b overlaps tensor a"),
    (
        (header_of(a=ENTRY, b=ENTRY | {"data_offsets": [4, 12]}), bytes(12)),
        "x.safetensors: tensor b overlaps tensor a",
    ),
    (
        (header_of(a=ENTRY | {"data_offsets": [8, 16]}), bytes(16)),
        "x.safetensors: 8 bytes between the header and tensor a belong to no tensor",
    ),
    (
        (header_of(a=ENTRY, b=ENTRY | {"data_offsets": [16, 24]}), bytes(24)),
        "x.safetensors: 8 bytes between tensor a and tensor b belong to no tensor",
    ),
    ((header_of(a=ENTRY), bytes(9)), "x.safetensors: 1 bytes after the last tensor belong to no tensor"),
    (
        (header_of(**{"x\n\x1b[31m": ENTRY}), bytes(7)),
        "x.safetensors: truncated: tensor x\\n\\x1b[31m ends at byte 8 of the data, the data at 7; download it again",
    ),
]


@pytest.mark.parametrize(("content", "message"), REFUSALS, ids=range(len(REFUSALS)))
def test_refusals(tmp_path: Path, content: bytes | tuple[bytes, bytes], message: str) -> None:
    path = tmp_path / "x.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_bytes(path, *content)
    assert refusal(path) == message


@pytest.mark.parametrize(("content", "message"), REFUSALS, ids=range(len(REFUSALS)))
def test_a_file_that_arrives_is_refused_by_its_header(
    tmp_path: Path, content: bytes | tuple[bytes, bytes], message: str
) -> None:
    """For the same reason, before the rest is there; files of less than 64 bytes are not looked at."""
    path = tmp_path / "x.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_bytes(path, *content)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(64, 8 + int.from_bytes(whole[:8], "little"))])
    if len(whole) < 64:
        assert check_beginning(path, len(whole)) == 64
    else:
        told = message_of(AdapterError, lambda: check_beginning(path, len(whole)))
        assert f"x.safetensors: {told}" == message


@pytest.mark.parametrize("with_size", [True, False])
def test_a_good_file_that_arrives(tmp_path: Path, with_size: bool) -> None:
    path = write_tensors(tmp_path / "x", {"a" * 90: ("F32", np.ones(4, np.float32))})
    whole = path.read_bytes()
    size = len(whole) if with_size else None
    data_begin = len(whole) - 16
    for there, needed in ((0, 64), (63, 64), (64, data_begin), (data_begin - 1, data_begin), (data_begin, 0)):
        path.write_bytes(whole[:there])
        assert check_beginning(path, size) == needed, there


def test_a_long_name_is_shortened(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "x.safetensors", header_of(**{"n" * 10_000: 1}))
    name = "n" * 80 + "…" + "n" * 80
    assert refusal(path) == f"x.safetensors: tensor {name}: the header entry must have dtype, shape and data_offsets"


def test_a_dtype_that_is_not_supported_is_named(tmp_path: Path) -> None:
    file = read_file(write_tensors(tmp_path / "x", {"a": ("F8_E8M0", np.zeros(2, np.uint8))}))
    assert (
        message_of(AdapterError, lambda: file.tensors["a"].array) == "tensor a is F8_E8M0: save it as F16, BF16 or F32"
    )


def test_a_path_that_is_not_a_file(tmp_path: Path) -> None:
    missing = tmp_path / "no.safetensors"
    assert refusal(missing) == f"{missing}: cannot be read (No such file or directory)"
    assert refusal(tmp_path) == f"{tmp_path.name}: not a file"
    assert refusal(Path("a\0b")) == "a\\x00b: cannot be read (embedded null byte)"


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert refusal(tmp_path / "pipe.safetensors") == "pipe.safetensors: not a file"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tensors=st.dictionaries(
        st.text(max_size=20),
        st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8]).flatmap(
            lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
        ),
        min_size=1,
        max_size=5,
    )
)
def test_round_trip(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    tensors.pop("__metadata__", None)
    names = {"<f2": "F16", "<f4": "F32", "<f8": "F64", "<i8": "I64", "|u1": "U8"}
    path = write_tensors(tmp_path / "x", {name: (names[array.dtype.str], array) for name, array in tensors.items()})
    for name, tensor in read_file(path).tensors.items():
        np.testing.assert_array_equal(tensor.array, tensors[name])


def test_a_header_may_have_spaces_escapes_and_no_metadata(tmp_path: Path) -> None:
    text = b'{ "__metadata__" : null ,\t"\\u00e9\\"{}" : { "shape" : [ 2 ],"dtype":"F32", "data_offsets" :[0,8]}\r}\n'
    file = read_file(write_bytes(tmp_path / "x", text, bytes(8)))
    assert (dict(file.metadata), list(file.tensors)) == ({}, ['é"{}'])


def test_more_tensors_than_any_model_has(tmp_path: Path) -> None:
    """Each tensor takes memory for objects, however short its entry is."""
    tensors = {str(number): ("U8", np.zeros(0, np.uint8)) for number in range(2**15 + 1)}
    assert refusal(write_tensors(tmp_path / "x", tensors)) == "x: more than 32768 tensors, which no model has"


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":[' + b"[]," * 300_000 + b"[]]}",
        b'{"a":{"shape":[' + b"[]," * 300_000 + b"[]]}}",
        b'{"__metadata__":{' + b",".join(b'"%d":""' % number for number in range(100_000)) + b"}}",
        b'{"__metadata__":{"a":"' + b"x" * 1_000_000 + b'"}}',
        b'{"__metadata__":{"a":"' + rb"\"" * 500_000 + b'"}}',
        b"{" * 1_000_000,
        b" " * 1_000_000,
    ],
    ids=["lists", "lists in an entry", "metadata", "long metadata", "escapes", "braces", "nothing"],
)
def test_a_header_that_is_made_to_fill_the_memory(tmp_path: Path, header: bytes) -> None:
    """JSON objects take up to twenty times the text's length, but reading must stay below four times the file's."""
    path = write_bytes(tmp_path / "x", header)
    tracemalloc.start()
    refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(header)


@pytest.mark.parametrize("dtype", ["F16", "F8_E4M3", "F8_E5M2"])
def test_converting_takes_little_memory_beyond_the_result(tmp_path: Path, dtype: str) -> None:
    bits = np.arange(2**18).astype(np.uint8 if "8" in dtype else np.uint16)
    tensor = read_file(write_tensors(tmp_path / "x", {"a": (dtype, bits)})).tensors["a"]
    for convert in (tensor.float32, tensor.raw):
        tracemalloc.start()
        result = convert()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < result.nbytes + 600_000


def _tiny(path: Path) -> bytes:
    tensors = {
        "a": ("F16", np.ones((2, 3), np.float16)),
        "b": ("BF16", np.ones(4, np.uint16)),
        "c": ("F32", np.ones(1, "<f4")),
    }
    return write_tensors(path, tensors, {"key": "value"}).read_bytes()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=4), cut=st.integers(0, 400))
def test_damaged_files_are_read_or_refused(tmp_path: Path, edits: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(_tiny(tmp_path / "x"))
    for position, value in edits:
        content[position % len(content)] = value
    (tmp_path / "y").write_bytes(content[: len(content) - cut] if cut < 100 else content)
    _read_or_refuse(tmp_path / "y")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats() | st.sampled_from(["F16", "F32", "BF16", "U8", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__", "\n"]),
        _JSON | st.fixed_dictionaries({"dtype": _JSON, "shape": _JSON, "data_offsets": _JSON}),
    ),
    size=st.integers(0, 40),
)
def test_any_json_in_the_header_is_read_or_refused(tmp_path: Path, header: dict[str, Any], size: int) -> None:
    _read_or_refuse(write_bytes(tmp_path / "y", json.dumps(header).encode(), bytes(size)))


def _read_or_refuse(path: Path) -> None:
    file = result_or_message(AdapterError, lambda: read_file(path))
    for tensor in () if isinstance(file, str) else file.tensors.values():
        assert tensor.nbytes == len(tensor.raw_bytes)
        assert tensor.dtype not in ("F16", "F32", "BF16", "U8") or tensor.array.shape == tensor.shape

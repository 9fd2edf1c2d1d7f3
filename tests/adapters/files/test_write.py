"""Files that we write, read by the safetensors library."""

from __future__ import annotations

import hashlib
import resource
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save

from lorablend.adapters.errors import AdapterError, InputError, ResourceError
from lorablend.adapters.files.write import Stored, hash_tensors, stored, write_file
from tests.adapter_files import message_of

TENSORS: dict[str, Stored] = {
    "b": ("F16", np.arange(3, dtype="<f2")),
    "a": ("F32", np.arange(6, dtype="<f4").reshape(2, 3).T),  # not contiguous
    "number": ("F32", np.float32(4).reshape(())),
    "empty": ("F16", np.zeros((0, 4), "<f2")),
}


def test_the_safetensors_library_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_file(path, TENSORS, {"ß": "é\n", "a": "b"})
    loaded = load_file(path)
    assert loaded.keys() == TENSORS.keys()
    for name, (_, values) in TENSORS.items():
        np.testing.assert_array_equal(loaded[name], values)
        assert loaded[name].dtype == values.dtype
    with safe_open(path, "numpy") as file:
        assert file.metadata() == {"a": "b", "ß": "é\n"}
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_its_bytes_are_the_same_as_the_librarys(tmp_path: Path) -> None:
    arrays = {name: np.array(values, order="C") for name, (_, values) in TENSORS.items()}
    write_file(tmp_path / "x", TENSORS, {"a": "b"})
    assert (tmp_path / "x").read_bytes() == save(arrays, {"a": "b"})


def test_the_hash_is_that_of_what_follows_the_header(tmp_path: Path) -> None:
    write_file(tmp_path / "x", TENSORS, {})
    content = (tmp_path / "x").read_bytes()
    data = content[8 + int.from_bytes(content[:8], "little") :]
    assert hash_tensors(TENSORS) == hashlib.sha256(data).hexdigest()


def test_rounding_to_bfloat16_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    values[:3] = [1 + 2**-8, 1 + 3 * 2**-8, -0.0]  # ties
    expected = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(stored(values, "bf16", "x")[1], expected)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_numbers_that_do_not_fit(dtype: str) -> None:
    infinite = np.array([1, np.inf], np.float32)
    assert message_of(AdapterError, lambda: stored(infinite, dtype, "x")) == (
        f"tensor x: inf does not fit {dtype}; lower the weights"
    )
    if dtype == "f16":
        assert message_of(AdapterError, lambda: stored(np.float32(1e5), dtype, "x")) == (
            "tensor x: 1e+05 does not fit f16; write bf16 or f32"
        )


def test_an_existing_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"mine")
    assert message_of(InputError, lambda: write_file(path, TENSORS, {})) == (
        f"{path} is already there; choose another name or delete it"
    )
    assert path.read_bytes() == b"mine"


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # fails larger writes, as a full disk does
    try:
        message = message_of(ResourceError, lambda: write_file(tmp_path / "x.safetensors", TENSORS, {}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert message.endswith("x.safetensors could not be written: File too large")
    assert list(tmp_path.iterdir()) == []

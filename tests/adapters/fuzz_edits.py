"""Ways in which an adapter file can be wrong: in its tensors, its metadata, its header, or its bytes.

Every edit takes a random generator and changes its argument in place. The result is not always a broken file.
"""

import json
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np

from lorablend.adapters.names.keys import PREFIXES, ROLES
from tests.adapter_files import encode
from tests.adapters.fuzz_files import CONFIG, DTYPES, Draft

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F128": 128,
}  # fmt: skip
_FLOATS = (*DTYPES, "F64")
_VALUES = (0.0, -0.0, 1.0, -1.0, 1e-45, 65504.0, 1e30, 3e38, -3e38, 1e300, float("inf"), float("-inf"), float("nan"))
_SIZES = (0, 1, 2, 3, 5, 16, 255, 2**15, 2**20, 2**31, 2**40, 2**62, 2**63, 2**64, 10**30)
_WORDS = (
    "", "_", "__", ".", "..", "lora_", "unet.", "to_q", "to_out_0", "conv1", ".weight", ".alpha", ".bias", "_aux.",
    "bundle_emb.", "transformer.", "double_blocks.0.", "default", "\x00", "\n", "é", "😀",
    "\ud800", "a" * 500, "." * 300,
)  # fmt: skip


def _one(random: Random, draft: Draft) -> str | None:
    return random.choice(list(draft.tensors)) if draft.tensors else None


def _count(shape: Sequence[int]) -> int:
    """The number of elements of a shape, up to the most that is filled here."""
    return int(min(math.prod(map(float, shape)), 4096.0))


def _filled(random: Random, dtype: str, shape: Sequence[int]) -> bytes:
    """Numbers for a small shape; too few bytes for a large one."""
    count = _count(shape)
    if dtype not in _FLOATS:
        return random.randbytes(count * _BITS.get(dtype, 8) // 8)
    if random.random() < 0.3:
        values = np.full(count, random.choice(_VALUES))
    else:
        values = np.random.default_rng(random.getrandbits(32)).normal(0, 10 ** random.uniform(-4, 4), count)
    with np.errstate(all="ignore"):
        return encode(values.astype(np.float64 if dtype == "F64" else np.float32), dtype).tobytes()


# --- tensors ---------------------------------------------------------------------------------------------------------


def drop_tensor(random: Random, draft: Draft, _: Draft) -> None:
    if name := _one(random, draft):
        del draft.tensors[name]


def drop_module(random: Random, draft: Draft, _: Draft) -> None:
    if name := _one(random, draft):
        start = name.partition(".")[0]
        for other in [other for other in draft.tensors if other.startswith(start)]:
            del draft.tensors[other]


def graft(random: Random, draft: Draft, other: Draft) -> None:
    """Tensors of another file, perhaps renamed to modules of this one."""
    for name in random.sample(sorted(other.tensors), min(len(other.tensors), random.randint(1, 6))):
        target = name
        if random.random() < 0.5 and (own := _one(random, draft)):
            target = own.partition(".")[0] + "." + name.partition(".")[2]
        draft.tensors[target] = other.tensors[name]


def rename(random: Random, draft: Draft, _: Draft) -> None:
    """Change a prefix, role or letter, in one name or the same in all."""
    if not (name := _one(random, draft)):
        return
    kind = random.randrange(6)
    if kind == 0:
        old, new = name.partition("_")[0], random.choice(PREFIXES)[0]
    elif kind == 1:
        old, new = "." + name.partition(".")[2], random.choice(ROLES)[0].replace("*", random.choice(_WORDS))
    elif kind == 2:
        digits = [character for character in name if character.isdigit()] or ["."]
        old, new = random.choice(digits), random.choice("0123456789")
    elif kind == 3:
        old, new = random.choice([".", "_"]), random.choice([".", "_", "__", ""])
    else:
        at = random.randrange(len(name) + 1)
        old, new = name[at : at + random.randint(1, 4)], random.choice(_WORDS)
    count = random.choice([1, -1])
    names = list(draft.tensors) if random.random() < 0.3 else [name]
    renamed = {one: one.replace(old, new, count) if one in names and old else one for one in draft.tensors}
    draft.tensors = {renamed[one]: tensor for one, tensor in draft.tensors.items()}


def spell_twice(random: Random, draft: Draft, _: Draft) -> None:
    """Add a tensor under a second name, with the same or other numbers."""
    if name := _one(random, draft):
        dtype, shape, content = draft.tensors[name]
        dots = name.count(".")
        second = random.choice(
            [name.replace(".", "_", dots - 1), f"base_model.model.{name}", name.replace("_", "__", 1), name * 2]
        )
        changed = _filled(random, dtype, shape) if random.random() < 0.5 else content
        draft.tensors[second] = dtype, list(shape), changed


def revalue(random: Random, draft: Draft, _: Draft) -> None:
    if name := _one(random, draft):
        dtype, shape, _content = draft.tensors[name]
        draft.tensors[name] = dtype, shape, _filled(random, dtype, shape)


def retype(random: Random, draft: Draft, _: Draft) -> None:
    """Change a dtype, usually with as many bytes as it needs."""
    if name := _one(random, draft):
        _dtype, shape, content = draft.tensors[name]
        dtype = random.choice(_FLOATS if random.random() < 0.6 else list(_BITS))
        draft.tensors[name] = dtype, shape, _filled(random, dtype, shape) if random.random() < 0.9 else content


def reshape(random: Random, draft: Draft, _: Draft) -> None:
    """Change a shape to another one with the same number of elements."""
    if name := _one(random, draft):
        dtype, shape, content = draft.tensors[name]
        shape = list(shape)
        kind = random.randrange(5)
        if kind == 0:
            random.shuffle(shape)
        elif kind == 1:
            shape.insert(random.randint(0, len(shape)), 1)
        elif kind == 2 and 1 in shape:
            shape.remove(1)
        elif kind == 3:
            shape = [math.prod(shape)]
        elif len(shape) > 1:
            shape = [shape[0], math.prod(shape[1:])]
        draft.tensors[name] = dtype, shape, content


def resize(random: Random, draft: Draft, _: Draft) -> None:
    """Change a shape, with numbers for it if it is small; in one tensor, or the same size in all."""
    if not (name := _one(random, draft)):
        return
    _dtype, shape, _content = draft.tensors[name]
    if not shape:
        old, new = None, random.choice(_SIZES)
    else:
        old = random.choice(shape)
        new = random.choice([random.choice(_SIZES), max(0, old + random.choice([-1, 1])), 2 * old])
    everywhere = random.random() < 0.4 and new < 100
    for one, (dtype, sizes, _content) in list(draft.tensors.items()):
        if one == name or everywhere:
            other = [new if size == old else size for size in sizes] if old is not None else [*sizes, new]
            draft.tensors[one] = dtype, other, _filled(random, dtype, other)


def add_dimensions(random: Random, draft: Draft, _: Draft) -> None:
    if name := _one(random, draft):
        dtype, shape, _content = draft.tensors[name]
        shape = [*shape, *(random.choice([1, 1, 2, 3]) for _ in range(random.choice([1, 2, 2, 14, 60])))]
        draft.tensors[name] = dtype, shape, _filled(random, dtype, shape)


def number_forms(random: Random, draft: Draft, _: Draft) -> None:
    """Add alpha, scale, scalar or on_input in any form."""
    if name := _one(random, draft):
        role = random.choice([".alpha", ".alpha", ".alpha", ".scale", ".scalar", ".on_input", ".dora_scale"])
        target = random.choice([one for one in draft.tensors if one.endswith(role)] or [name.partition(".")[0] + role])
        dtype = random.choice([*_FLOATS, "F16", "F32", "I64", "I32", "U8", "BOOL"])
        shape = random.choice([[], [], [1], [1, 1], [2], [0], [1, 1, 1, 1]])
        draft.tensors[target] = dtype, shape, _filled(random, dtype, shape)


def whole_numbers(random: Random, draft: Draft, _: Draft) -> None:
    """Change indices and sizes of sparse residuals, also to values out of range."""
    names = [one for one in draft.tensors if ".bias_" in one] or list(draft.tensors)
    if names:
        name = random.choice(names)
        _dtype, shape, content = draft.tensors[name]
        dtype = random.choice(["I64", "I64", "I32", "I16", "U64"])
        numbers = [random.choice([0, 1, 3, 4, 6, 24, -1, 2**15 - 1]) for _ in range(min(len(content) + 1, 64))]
        count = _count(shape)
        numbers = (numbers * (count // len(numbers) + 1))[:count]
        with np.errstate(all="ignore"):
            values = np.array(numbers, np.int64).astype({"I64": "<i8", "I32": "<i4", "I16": "<i2", "U64": "<u8"}[dtype])
        draft.tensors[name] = dtype, shape, values.tobytes()


# --- metadata and settings -------------------------------------------------------------------------------------------


def _any_json(random: Random, depth: int = 0) -> Any:
    kind = random.randrange(11 if depth < 3 else 8)
    if kind < 4:
        numbers = (0, 1, -1, 2, 4.5, 1e300, 10**400, -(10**30), float("inf"), float("nan"))
        return random.choice([None, True, False, *numbers])
    if kind < 8:
        return random.choice([*_WORDS, "pissa", "to_q", "4", "true", "(a|b)*c", "(a+)+$", "^conv", ".*", "[", "\\d+"])
    if kind == 8:
        return [_any_json(random, depth + 1) for _ in range(random.randint(0, 4))]
    return {str(_any_json(random, 3)): _any_json(random, depth + 1) for _ in range(random.randint(0, 4))}


def _settings(random: Random) -> str:
    if random.random() < 0.1:
        return random.choice(["[" * 100_000, '{"a":' * 50_000, "", "null", "[]", "1" * 6000, "{", '{"r": 1}' * 2])
    settings: dict[str, Any] = dict(CONFIG)
    for _ in range(random.randint(1, 4)):
        settings[random.choice(list(settings))] = _any_json(random)
    if random.random() < 0.5:
        settings = {f"{random.choice(['unet', 'text_encoder'])}.{key}": value for key, value in settings.items()}
    return json.dumps(settings)


def describe(random: Random, draft: Draft, _: Draft) -> None:
    """Set metadata, valid or not."""
    key = random.choice(
        ["lora_adapter_metadata", "lora_alpha", "network_alpha", "alpha", "ss_network_dim", "ss_base_model_version",
         "ss_tag_frequency", "ss_v2", "modelspec.architecture", "modelspec.trigger_phrase", "ss_output_name"]
    )  # fmt: skip
    values = [
        "None",
        "1e400",
        "nan",
        "-0",
        "True",
        "sd_v1",
        "stable-diffusion-v2",
        "🖋" * 50,
        "a," * 500,
        "\ud800",
        "{}",
    ]
    draft.metadata[key] = (
        _settings(random) if key == "lora_adapter_metadata" else random.choice([*values, json.dumps(_any_json(random))])
    )


def configure(random: Random, draft: Draft, _: Draft) -> None:
    """Set PEFT's settings next to the file, valid or not."""
    draft.config = random.choice(
        [_settings(random).encode("utf-8", "replace"), _settings(random).encode("utf-8", "replace"), b"\xff\xfe", b""]
    )


TENSOR_EDITS: tuple[Callable[[Random, Draft, Draft], None], ...] = (
    drop_tensor, drop_module, graft, graft, rename, rename, spell_twice, revalue, retype, reshape, resize, resize,
    add_dimensions, number_forms, number_forms, whole_numbers, describe, configure,
)  # fmt: skip


# --- the header ------------------------------------------------------------------------------------------------------


def _entry(random: Random, header: dict[str, Any]) -> dict[str, Any] | None:
    names = [name for name, entry in header.items() if name != "__metadata__" and isinstance(entry, dict)]
    return header[random.choice(names)] if names else None


def _offsets(entry: dict[str, Any] | None) -> list[int] | None:
    """The offsets, unless another edit has replaced them."""
    offsets = (entry or {}).get("data_offsets")
    return offsets if isinstance(offsets, list) and [type(one) for one in offsets] == [int, int] else None


def move(random: Random, header: dict[str, Any]) -> None:
    entry = _entry(random, header)
    if entry and (offsets := _offsets(entry)):
        shift = random.choice([-8, -4, -1, 1, 2, 4, 8, 10**6, 2**63])
        entry["data_offsets"] = random.choice(
            [[offsets[0] + shift, offsets[1] + shift], [offsets[0], offsets[1] + shift], offsets[::-1], [0, 0]]
        )


def claim(random: Random, header: dict[str, Any]) -> None:
    """Change a shape, with or without the offsets that go with it."""
    if entry := _entry(random, header):
        shape = [random.choice(_SIZES) for _ in range(random.randint(0, 5))]
        entry["shape"] = shape
        if random.random() < 0.5:
            entry["data_offsets"] = [0, math.prod(shape) * 2]
        if 0 in shape:
            entry["data_offsets"] = [(_offsets(entry) or [0])[0]] * 2


def garble(random: Random, header: dict[str, Any]) -> None:
    entry = _entry(random, header)
    target: Any = random.choice([header, header if entry is None else entry])
    if target:
        target[random.choice([*target, "more", "__metadata__"])] = _any_json(random)


def swap(random: Random, header: dict[str, Any]) -> None:
    """Exchange two tensors."""
    first, second = _entry(random, header), _entry(random, header)
    if first and second:
        first["data_offsets"], second["data_offsets"] = second.get("data_offsets"), first.get("data_offsets")


HEADER_EDITS: tuple[Callable[[Random, dict[str, Any]], None], ...] = (move, claim, claim, garble, swap)


# --- the bytes -------------------------------------------------------------------------------------------------------


def flip(random: Random, content: bytearray) -> None:
    """Change a few bytes, in the header more often than elsewhere."""
    header = 8 + int.from_bytes(content[:2], "little")
    for _ in range(random.choice([1, 1, 2, 5, 50])):
        if content:
            end = len(content) if random.random() < 0.5 else min(len(content), header)
            content[random.randrange(end)] = random.choice([0, 255, 0x7C, 0x7F, random.randrange(256), *b'"{}[],:\\9'])


def cut(random: Random, content: bytearray) -> None:
    del content[random.randrange(len(content) + 1) :]


def insert(random: Random, content: bytearray) -> None:
    at = random.randrange(len(content) + 1)
    content[at:at] = random.randbytes(random.choice([1, 2, 4, 8, 100]))


def erase(random: Random, content: bytearray) -> None:
    at = random.randrange(len(content) + 1)
    del content[at : at + random.choice([1, 2, 4, 8, 100])]


def twice_in_header(random: Random, content: bytearray) -> None:
    """Repeat text in the header and correct its length: duplicate names, unmatched braces."""
    size = int.from_bytes(content[:8], "little")
    if 8 < size <= len(content) - 8:
        at, length = 9 + random.randrange(size), random.choice([1, 10, 100, size])
        part = content[at : min(at + length, 8 + size)]
        content[at:at] = part
        content[:8] = (size + len(part)).to_bytes(8, "little")


def relength(random: Random, content: bytearray) -> None:
    size = int.from_bytes(content[:8], "little")
    length = random.choice([size + 1, size - 1, 0, 2, 2**32, 10**8, 2**63, 2**64 - 1])
    content[:8] = (length % 2**64).to_bytes(8, "little")


BYTE_EDITS: tuple[Callable[[Random, bytearray], None], ...] = (
    flip, flip, flip, cut, insert, erase, twice_in_header, relength
)  # fmt: skip


def mutated(random: Random, draft: Draft, other: Draft) -> tuple[bytes, Draft]:
    """The bytes of a file with one to four edits, and the edited draft. `draft` itself is not changed."""
    draft = Draft(dict(draft.tensors), dict(draft.metadata), draft.config)
    level = random.choice(["tensors", "tensors", "tensors", "header", "bytes", "all"])
    if level in ("tensors", "all"):
        for _ in range(random.choice([1, 1, 2, 3])):
            random.choice(TENSOR_EDITS)(random, draft, other)
    header = draft.header()
    if level in ("header", "all"):
        header = {name: dict(entry) if isinstance(entry, dict) else entry for name, entry in header.items()}
        for _ in range(random.choice([1, 1, 2])):
            random.choice(HEADER_EDITS)(random, header)
    text = json.dumps(header, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    content = bytearray(len(text).to_bytes(8, "little") + text + draft.data())
    if level in ("bytes", "all"):
        for _ in range(random.choice([1, 1, 2])):
            random.choice(BYTE_EDITS)(random, content)
    return bytes(content), draft

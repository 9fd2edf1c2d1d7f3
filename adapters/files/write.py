"""Write a safetensors file: completely or not at all, with the same bytes for the same content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lorablend.adapters.errors import AdapterError, InputError, ResourceError
from lorablend.adapters.files.atomic import atomic_write
from lorablend.adapters.wording import shown

__all__ = ["DTYPES", "Stored", "check_new", "hash_tensors", "stored", "write_file"]

# (the format's name of the dtype, the values; bfloat16 as bits in uint16)
Stored = tuple[str, np.ndarray]

DTYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}  # those that our own files may have


def stored(values: np.ndarray, dtype: str, name: str) -> Stored:
    """Round float32 values to "f32", "f16" or "bf16", to nearest, ties to even.

    `name` is the tensor's name. Raises AdapterError for a number that the type cannot represent.
    """
    values = np.asarray(values, np.float32, order="C")
    if dtype == "bf16":
        bits = values.view(np.uint32)
        result = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
        finite = np.isfinite((result.astype(np.uint32) << 16).view(np.float32)).all()
    else:
        with np.errstate(over="ignore"):
            result = values.astype("<f2" if dtype == "f16" else "<f4", copy=False)
        finite = np.isfinite(result).all()
    if not finite:
        largest = float(np.abs(values).max())
        remedy = "write bf16 or f32" if dtype == "f16" and np.isfinite(largest) else "lower the weights"
        raise AdapterError(f"tensor {shown(name)}: {largest:.3g} does not fit {dtype}; {remedy}")
    return DTYPES[dtype], result


def check_new(path: Path) -> None:
    """Raise InputError if `path` exists or its folder does not, before any work is done."""
    if path.exists():
        raise InputError(f"{shown(path)} is already there; choose another name or delete it")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{shown(path)}: the folder {shown(path.absolute().parent)} does not exist; create it first")


def hash_tensors(tensors: Mapping[str, Stored]) -> str:
    """Return the SHA-256 in hex of the tensors' bytes as `write_file` writes them after the header."""
    digest = hashlib.sha256()
    for _, (_, array) in _ordered(tensors):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write_file(path: Path, tensors: Mapping[str, Stored], metadata: Mapping[str, str]) -> None:
    """Write tensors and text entries to `path`, which must be new.

    Raises InputError if it exists, ResourceError if it cannot be written.
    """
    check_new(path)
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name, (dtype, array) in _ordered(tensors):
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    try:
        with atomic_write(path) as part, part.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for _, (_, array) in _ordered(tensors):
                file.write(np.ascontiguousarray(array).data)
    except OSError as error:
        raise ResourceError(f"{shown(path)} could not be written: {error.strerror or error}") from error


def _ordered(tensors: Mapping[str, Stored]) -> list[tuple[str, Stored]]:
    """Sort by decreasing element size, so that all are aligned, then by name, as the safetensors library does."""
    return sorted(tensors.items(), key=lambda item: (-item[1][1].itemsize, item[0]))

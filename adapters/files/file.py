"""Read an untrusted safetensors file: validate the header, then return views without copying.

Layout (https://github.com/huggingface/safetensors#format): u64 little-endian N, N bytes of JSON, the tensors' bytes.
Every size in the header is checked against the file's real length before any memory is allocated for it.
"""

import math
import mmap
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.header import METADATA, read_header
from lorablend.adapters.wording import shown

__all__ = ["Tensor", "TensorFile", "check_beginning", "read_file"]

_HEADER_LIMIT = 100_000_000  # bytes, the same as the safetensors library's
_ELEMENT_LIMIT = 2**40  # in a shape without its zeros; numpy cannot even describe a larger array
_DIMENSION_LIMIT = 16
_LEAST = 64  # bytes that tell what a file is
_TENSOR_LIMIT = 2**15  # the fullest files have half as many; even an empty one takes a kilobyte or two of objects

# The width in bits of every dtype of the format, so that headers are checked even for dtypes that we cannot use.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

# numpy has no bfloat16 and no 8-bit floats: their bits are kept as uint16 and uint8.
_NUMPY = {
    "F8_E4M3": "<u1", "F8_E5M2": "<u1", "F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8",
    "U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8", "I64": "<i8",
}  # fmt: skip

# Every float16 as float32, indexed by its bits. numpy converts float16 in software, which is slower than this lookup,
# and three times slower for subnormal numbers (below 6e-5), which are common in small updates.
_F16_VALUES = np.arange(2**16, dtype="<u2").view("<f2").astype(np.float32)


def _f8_e4m3_values() -> np.ndarray:
    """Return every F8_E4M3 value as float16, which represents them all exactly.

    An F8_E4M3 has 4 bits of exponent with bias 7, 3 bits of fraction, and no infinity
    (https://arxiv.org/abs/2209.05433, table 1).
    """
    bits = np.arange(128)
    exponent, fraction = bits >> 3, bits & 7
    values = np.where(exponent == 0, fraction / 8 * 2.0**-6, (1 + fraction / 8) * 2.0 ** (exponent - 7))
    values[127] = np.nan
    return np.concatenate([values, -values]).astype(np.float16)


# Both as float16, indexed by their bits. An F8_E5M2 is the upper half of a float16.
_F8_VALUES = {"F8_E4M3": _f8_e4m3_values(), "F8_E5M2": (np.arange(2**8, dtype="<u2") << 8).view("<f2")}

_LOOK_UP = 2**15  # elements at a time: numpy widens the indices to 8 bytes, and this many still fit the cache


def _look_up(values: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Return `values[bits]` as a new array, with little memory beyond that."""
    result = np.empty(bits.shape, values.dtype)
    flat, flat_bits = result.reshape(-1), bits.reshape(-1)
    for start in range(0, flat.size, _LOOK_UP):
        part = slice(start, start + _LOOK_UP)
        np.take(values, flat_bits[part], out=flat[part], mode="clip")  # the other modes would buffer the output
    return result


# The bits of positive infinity, or of the smallest NaN if there is no infinity. As integers, no NaN is smaller.
_INFINITY = {
    "F8_E4M3": 0x7F,
    "F8_E5M2": 0x7C,
    "F16": 0x7C00,
    "BF16": 0x7F80,
    "F32": 0x7F800000,
    "F64": 0x7FF0000000000000,
}

# What a file that is not safetensors usually is, by its first bytes.
_LOOKALIKES = (
    (b"<", "a web page, so the download failed"),
    (b"{", "JSON text, so the download failed"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the real file with git lfs pull"),
    (b"PK\x03\x04", "a torch pickle or a zip: convert it to safetensors"),
    (b"\x80", "a pickle: convert it to safetensors"),
)


@dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """One tensor of a file; its bytes are read only on request.

    `dtype` is the format's name for it ("F16", "BF16", "F32"…), `shape` its dimensions.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    buffer: mmap.mmap = field(repr=False)
    begin: int = field(repr=False)  # where its bytes start in the file

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The length in the file, in bytes."""
        return self.count * _BITS[self.dtype] // 8

    @property
    def raw_bytes(self) -> bytes:
        """A copy of the bytes in the file."""
        return self.buffer[self.begin : self.begin + self.nbytes]

    @property
    def array(self) -> np.ndarray:
        """A read-only view of the file in its own dtype and shape; bfloat16 as uint16, 8-bit floats as uint8.

        It is a copy only if the file does not align the tensor to its element size. Raises AdapterError for a dtype
        that is not supported (F4, BOOL, C64…).
        """
        if self.dtype not in _NUMPY:
            raise AdapterError(f"tensor {shown(self.name)} is {self.dtype}: save it as F16, BF16 or F32")
        dtype = _NUMPY[self.dtype]
        if not self.count:  # frombuffer refuses an empty view
            return np.empty(self.shape, dtype)
        array = np.frombuffer(self.buffer, dtype, self.count, self.begin).reshape(self.shape)
        return array if array.flags.aligned else array.copy()

    def float32(self) -> np.ndarray:
        """Return the values as float32: a view of an F32 tensor, a new array otherwise."""
        if self.dtype == "F16":
            return _look_up(_F16_VALUES, self.array.view("<u2"))
        if self.dtype == "BF16":
            bits = self.array.astype(np.uint32)  # a bfloat16 is the upper half of a float32
            bits <<= 16
            return bits.view(np.float32)
        if self.dtype in _F8_VALUES:
            return _look_up(_F8_VALUES[self.dtype].astype(np.float32), self.array)
        with np.errstate(over="ignore"):  # a float64 may overflow
            return self.array.astype(np.float32, copy=False)

    def raw(self) -> np.ndarray:
        """Return the values in 16 or 32 bits without loss: `array`, but 8-bit floats as a new float16 array."""
        return _look_up(_F8_VALUES[self.dtype], self.array) if self.dtype in _F8_VALUES else self.array

    def is_finite(self) -> bool:
        """Return whether the tensor has no NaN and no infinity.

        Two integer maxima tell it without a temporary array: that of the signed bits covers the positive numbers, that
        of the unsigned bits the negative ones.
        """
        infinity = _INFINITY.get(self.dtype)
        if infinity is None or not self.count:
            return True
        width = _BITS[self.dtype] // 8
        array = self.array
        negative_infinity = infinity | (1 << (width * 8 - 1))
        return (
            int(array.view(f"<i{width}").max()) < infinity and int(array.view(f"<u{width}").max()) < negative_infinity
        )


@dataclass(frozen=True, eq=False)
class TensorFile:
    """A safetensors file whose header has been checked completely.

    The file stays mapped while any of its tensors is in use, so it must not be written to meanwhile. Replacing it with
    another file of the same name is safe (Windows does not allow it).
    """

    path: Path
    metadata: Mapping[str, str] = field(repr=False)
    tensors: Mapping[str, Tensor] = field(repr=False)
    buffer: mmap.mmap = field(repr=False)
    data_begin: int = field(repr=False)  # bytes before the first tensor: 8 + the header's length

    @property
    def size(self) -> int:
        """The length of the file in bytes."""
        return len(self.buffer)


def read_file(path: str | os.PathLike[str]) -> TensorFile:
    """Open and validate a safetensors file. Raises AdapterError if anything is wrong with it."""
    path = Path(path)
    try:
        return _read(path)
    except AdapterError as error:
        raise AdapterError(f"{shown(path.name or path)}: {error}") from error.__cause__
    except OSError as error:
        raise AdapterError(f"{shown(path)}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # a NUL in the path
        raise AdapterError(f"{shown(path)}: cannot be read ({error})") from error


def check_beginning(path: Path, size: int | None) -> int:
    """Check as much of a file that is still arriving as is there.

    Args:
        path: The file so far.
        size: How many bytes it will have, None if unknown.

    Returns:
        How many bytes are needed to check more; 0 if the whole header is checked.

    Raises:
        AdapterError: It will be no valid safetensors file, whatever follows.
    """
    with path.open("rb") as stream:
        start, there = stream.read(64), os.fstat(stream.fileno()).st_size
    if there < _LEAST:
        return _LEAST
    data_begin = _data_begin(start, size)
    if there < data_begin:
        return data_begin
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), data_begin, access=mmap.ACCESS_READ) as buffer:
        tensors = _header(buffer, data_begin, size)[1]
        if size is not None:
            _check_layout(tensors, data_begin, size)
    return 0


def _read(path: Path) -> TensorFile:
    if not stat.S_ISREG(path.stat().st_mode):  # before opening it: opening a pipe would block
        raise AdapterError("not a file")
    with path.open("rb") as stream:
        if (length := os.fstat(stream.fileno()).st_size) < 8:
            raise AdapterError(f"not a safetensors file: {length} bytes long, the header alone needs 8")
        buffer = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    data_begin = _data_begin(buffer[:64], len(buffer))
    metadata, tensors = _header(buffer, data_begin, len(buffer))
    _check_layout(tensors, data_begin, len(buffer))
    return TensorFile(path, MappingProxyType(metadata), MappingProxyType(tensors), buffer, data_begin)


def _data_begin(start: bytes, size: int | None) -> int:
    """Where the header ends, by the file's first bytes. size: of the whole file, None if unknown."""
    header_size = int.from_bytes(start[:8], "little")
    data_begin = 8 + header_size
    if header_size > _HEADER_LIMIT or start[8:9] != b"{":
        raise AdapterError(f"not a safetensors file{_lookalike(start)}")
    if size is not None and data_begin > size:
        raise AdapterError(f"truncated: the header ends at byte {data_begin}, the file at {size}; download it again")
    return data_begin


def _header(buffer: mmap.mmap, data_begin: int, size: int | None) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors. size: bytes of the whole file, None if unknown."""
    metadata: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for name, value in read_header(_text(buffer, data_begin)):
        if name == METADATA:
            if value is None:
                raise AdapterError("the header's __metadata__ is not an object")
            metadata = value
        elif len(tensors) == _TENSOR_LIMIT:
            raise AdapterError(f"more than {_TENSOR_LIMIT} tensors, which no model has")
        else:
            tensors[name] = _tensor(name, value, buffer, data_begin, size)
    return metadata, tensors


def _lookalike(start: bytes) -> str:
    for magic, meaning in _LOOKALIKES:
        if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(magic):
            return f": it is {meaning}"
    return ""


def _text(buffer: mmap.mmap, end: int) -> str:
    with memoryview(buffer) as view, view[8:end] as header:
        try:
            return str(header, "utf-8")
        except UnicodeDecodeError as error:
            raise AdapterError("not a safetensors file: the header is not valid JSON") from error


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0  # type(): True is an int to isinstance


def _tensor(name: str, entry: Any, buffer: mmap.mmap, data_begin: int, size: int | None) -> Tensor:
    """Check one entry of the header: {"dtype": "F16", "shape": [8, 64], "data_offsets": [0, 1024]}."""
    label = f"tensor {shown(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise AdapterError(f"{label}: the header entry must have dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise AdapterError(f"{label}: unknown dtype {shown(dtype)}")
    if not isinstance(shape, list) or not all(_is_size(dimension) for dimension in shape):
        raise AdapterError(f"{label}: the shape must be a list of sizes")
    if len(shape) > _DIMENSION_LIMIT or math.prod(dimension or 1 for dimension in shape) > _ELEMENT_LIMIT:
        raise AdapterError(f"{label}: impossible shape {shown(shape)}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(offset) for offset in offsets):
        raise AdapterError(f"{label}: data_offsets must be two offsets")
    begin, end = offsets
    available = None if size is None else size - data_begin
    if available is not None and end > available:
        raise AdapterError(
            f"truncated: {label} ends at byte {shown(end)} of the data, the data at {available}; download it again"
        )
    bits = math.prod(shape) * _BITS[dtype]
    if (end - begin) * 8 != bits:
        raise AdapterError(f"{label}: {dtype} {shape} takes {bits // 8} bytes, its data_offsets give {end - begin}")
    return Tensor(name, sys.intern(dtype), tuple(shape), buffer, data_begin + begin)


def _check_layout(tensors: Mapping[str, Tensor], data_begin: int, size: int) -> None:
    """Check that the tensors follow each other without overlaps or gaps, from the header to the end of the file."""
    if not tensors:
        raise AdapterError("the file has no tensors")
    position, previous = data_begin, "the header"
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.begin, tensor.nbytes)):
        label = f"tensor {shown(tensor.name)}"
        if tensor.begin < position:
            raise AdapterError(f"{label} overlaps {previous}")
        if tensor.begin > position:
            raise AdapterError(f"{tensor.begin - position} bytes between {previous} and {label} belong to no tensor")
        position, previous = tensor.begin + tensor.nbytes, label
    if position < size:
        raise AdapterError(f"{size - position} bytes after the last tensor belong to no tensor")

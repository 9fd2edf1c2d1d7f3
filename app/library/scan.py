"""Reading the files of a library in three stages: the walk (`walk.py`), each file's header, each whole file.

The walk costs one `stat` per file, the header about 0.3 MB of reading, the last stage all of the file. In this order, a
folder of a hundred gigabytes is listed at once.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import TensorFile, read_file
from lorablend.adapters.files.metadata import base_model_hint, title, trigger_words
from lorablend.adapters.wording import shown

__all__ = ["AdapterFacts", "Hashes", "hash_whole", "read_facts"]

_CHUNK = 4 << 20  # bytes; from 1 MB on hashing is as fast as it gets
_TRIGGER_WORDS = 50  # at most; the metadata of a hostile file can hold millions


@dataclass(frozen=True, kw_only=True)
class AdapterFacts:
    """What the header of an adapter file tells about it.

    Attributes:
        title: From the metadata, or "".
        base_model: "sd15", "sd2", "sdxl" or "unknown".
        algorithms: Values of `Delta.algorithm`, the most frequent first.
        ranks: All ranks that occur, in ascending order.
        trigger_words: From the metadata, at most 50.
        tensors: Number of tensors; 0 for a file that is not a safetensors file.
        thumbnail: Whether the metadata contains a picture.
        error: Why the file cannot be used, or "" if no reason is known.
    """

    title: str = ""
    base_model: str = "unknown"
    algorithms: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    trigger_words: tuple[str, ...] = ()
    tensors: int = 0
    thumbnail: bool = False
    error: str = ""


@dataclass(frozen=True)
class Hashes:
    """SHA-256 of the whole file in hexadecimal, and Civitai's 12-digit hash of the tensors alone."""

    sha256: str
    autov3: str


def read_facts(path: Path) -> AdapterFacts:
    """Read what the header tells about the file; `error` names a tensor that is not understood.

    Of the tensors' values, only those without which the file cannot be understood are read.
    """
    error = ""
    try:
        adapter = load_adapter(path, check_values=False)
    except AdapterError as refusal:
        error = _without_name(refusal, path)
        try:
            adapter = load_adapter(path, lenient=True, check_values=False)
        except AdapterError:
            return _unusable(path, error)
    algorithms = Counter(delta.algorithm for delta in adapter.deltas.values())
    return AdapterFacts(
        base_model=adapter.base_model,
        algorithms=tuple(name for name, _ in algorithms.most_common()),
        ranks=tuple(sorted({delta.rank for delta in adapter.deltas.values() if delta.rank is not None})),
        error=error,
        **_from_metadata(adapter.file),
    )


def _unusable(path: Path, error: str) -> AdapterFacts:
    try:
        file = read_file(path)
    except AdapterError:
        return AdapterFacts(error=error)
    return AdapterFacts(base_model=base_model_hint(file.metadata) or "unknown", error=error, **_from_metadata(file))


def _without_name(error: AdapterError, path: Path) -> str:
    """The message without the file's name, which the entry has already."""
    return str(error).removeprefix(f"{shown(path.name)}: ").removeprefix(f"{shown(path)}: ")


def _from_metadata(file: TensorFile) -> dict[str, Any]:
    """Fields of `AdapterFacts`."""
    words = (shown(word) for word in trigger_words(file.metadata)[:_TRIGGER_WORDS])
    return {
        "title": shown(title(file.metadata) or ""),
        "trigger_words": tuple(words),
        "tensors": len(file.tensors),
        "thumbnail": "modelspec.thumbnail" in file.metadata,
    }


def hash_whole(path: Path) -> Hashes:
    """Compute both hashes in one pass.

    The file is read, not mapped into memory: the process would crash if a mapped file were truncated meanwhile.

    Raises:
        OSError: The file cannot be read.
    """
    whole, data = hashlib.sha256(), hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        start = stream.read(8)
        whole.update(start)
        header = int.from_bytes(start, "little")  # bytes of it that are still to come
        buffer = memoryview(bytearray(_CHUNK))
        while count := stream.readinto(buffer):
            whole.update(buffer[:count])
            data.update(buffer[header:count])
            header = max(0, header - count)
    return Hashes(whole.hexdigest(), data.hexdigest()[:12])

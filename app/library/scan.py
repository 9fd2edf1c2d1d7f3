"""Reading the files of a library in three stages: the walk over the folder, each file's header, each whole file.

The walk costs one `stat` per file, the header about 0.3 MB of reading, the last stage all of the file. In this order, a
folder of a hundred gigabytes is listed at once.
"""

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import TensorFile, read_file
from lorablend.adapters.files.metadata import base_model_hint, title, trigger_words
from lorablend.adapters.wording import shown
from lorablend.app.files import SUFFIX
from lorablend.app.library.preview import picture_beside

__all__ = ["AdapterFacts", "Hashes", "ScannedFile", "hash_whole", "read_facts", "walk"]

_CHUNK = 4 << 20  # bytes; from 1 MB on hashing is as fast as it gets
_TRIGGER_WORDS = 50  # at most; the metadata of a hostile file can hold millions


@dataclass(frozen=True)
class ScannedFile:
    """One file that the walk came across.

    Attributes:
        file: Path relative to the folder, with slashes.
        size: Bytes.
        mtime_ns: Time of the last change, in nanoseconds since 1970.
        inode: Number of the file on its disk.
        preview: Path of the picture next to the file, relative to the folder, or "".
        refused: Why the file is not opened, or "".
    """

    file: str
    size: int = 0
    mtime_ns: int = 0
    inode: int = 0
    preview: str = ""
    refused: str = ""


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


def walk(folder: Path) -> list[ScannedFile]:
    """List the adapter files of a folder at any depth, sorted by path, without hidden files and folders.

    A link that leads out of the folder is listed as refused and not followed: someone who can create a link must not
    be able to make the program read, show or serve any other file of the machine.

    Args:
        folder: The folder, with links resolved.
    """
    files: list[ScannedFile] = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(where)
        for name in folders:
            if (inside / name).is_symlink() and not _leads_inside(inside / name, folder):
                files.append(ScannedFile(_relative(inside / name, folder), refused=_LEADS_OUT))
        neighbours = set(names)
        for name in names:
            if name.lower().endswith(SUFFIX) and not name.startswith("."):
                files.append(_scan_file(inside / name, folder, neighbours))
    return sorted(files, key=lambda file: file.file)


_LEADS_OUT = "a link out of the folder, which is not followed; put the file itself here"


def _scan_file(path: Path, folder: Path, neighbours: set[str]) -> ScannedFile:
    file = _relative(path, folder)
    if not _is_text(file):
        return ScannedFile(shown(file), refused="its name is not valid UTF-8; rename it")
    try:
        status = path.stat()
        if path.is_symlink() and not _leads_inside(path, folder):
            return ScannedFile(file, refused=_LEADS_OUT)
        if not os.access(path, os.R_OK):
            return ScannedFile(file, refused="cannot be read (Permission denied)")
    except OSError as error:  # a dangling or circular link, or a file that has just been deleted
        return ScannedFile(file, refused=f"cannot be read ({error.strerror or error})")
    picture = picture_beside(path.name, neighbours)
    preview = _relative(path.with_name(picture), folder) if picture else ""
    # Reduced to what SQLite can store: some file systems have inodes up to 2⁶⁴, or dates in far centuries.
    return ScannedFile(file, status.st_size, status.st_mtime_ns % 2**63, status.st_ino % 2**63, preview)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _leads_inside(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # circular links
        return False


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

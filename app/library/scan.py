"""What the files of a library say: the walk over the folder, the header of a file, the whole file.

The walk costs a `stat` per file, the header some 0.3 MB of reading, the whole file all of it: in this order they are
done, so that a folder of a hundred gigabytes is listed at once.
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

__all__ = ["Facts", "Found", "Hashes", "hash_whole", "read_facts", "walk"]

_CHUNK = 4 << 20  # bytes; from 1 MB on hashing is as fast as it gets
_TRIGGER_WORDS = 50  # at most; the metadata of a hostile file holds millions


@dataclass(frozen=True)
class Found:
    """One file of the walk. `file` is its path from the folder, with slashes; `refused` says why it is not opened.

    `preview` is the path of the picture beside it, or "".
    """

    file: str
    size: int = 0
    mtime_ns: int = 0
    inode: int = 0
    preview: str = ""
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is in an adapter file. `error` is why it cannot be used, "" if nothing is known against it.

    `base_model` is "sd15", "sd2", "sdxl" or "unknown"; `algorithms` are the words of `Delta.algorithm`, the commonest
    first; `ranks` are sorted; `thumbnail`: the metadata holds a picture.
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
    """SHA-256 of the whole file, in hex, and Civitai's hash of the tensors alone, 12 digits."""

    sha256: str
    autov3: str


def walk(folder: Path) -> list[Found]:
    """The adapter files of a folder, at any depth, in the order of their names; what is hidden is left out.

    `folder` is resolved. A link that leads out of it is listed with an error and not followed: whoever can write a link
    must not make us read, show or serve any other file of the machine.
    """
    found: list[Found] = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(where)
        for name in folders:
            if (inside / name).is_symlink() and not _leads_inside(inside / name, folder):
                found.append(Found(_relative(inside / name, folder), refused=_LEADS_OUT))
        beside = set(names)
        for name in names:
            if name.lower().endswith(SUFFIX) and not name.startswith("."):
                found.append(_look_at(inside / name, folder, beside))
    return sorted(found, key=lambda one: one.file)


_LEADS_OUT = "a link out of the folder, which is not followed; put the file itself here"


def _look_at(path: Path, folder: Path, beside: set[str]) -> Found:
    file = _relative(path, folder)
    if not _is_text(file):
        return Found(shown(file), refused="its name is not valid UTF-8; rename it")
    try:
        status = path.stat()
        if path.is_symlink() and not _leads_inside(path, folder):
            return Found(file, refused=_LEADS_OUT)
        if not os.access(path, os.R_OK):
            return Found(file, refused="cannot be read (Permission denied)")
    except OSError as error:  # a link to nowhere or in a circle, a file that has just gone
        return Found(file, refused=f"cannot be read ({error.strerror or error})")
    picture = picture_beside(path.name, beside)
    preview = _relative(path.with_name(picture), folder) if picture else ""
    # Cut to what SQLite holds: some file systems number up to 2⁶⁴, or have dates in far centuries.
    return Found(file, status.st_size, status.st_mtime_ns % 2**63, status.st_ino % 2**63, preview)


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
    except (OSError, RuntimeError):  # a circle of links
        return False


def read_facts(path: Path) -> Facts:
    """What is in the file, every tensor understood or the error that says which one is not.

    The header tells it all; of the numbers, only those without which it cannot be understood are read.
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
    found = Counter(delta.algorithm for delta in adapter.deltas.values())
    return Facts(
        base_model=adapter.base_model,
        algorithms=tuple(name for name, _ in found.most_common()),
        ranks=tuple(sorted({delta.rank for delta in adapter.deltas.values() if delta.rank is not None})),
        error=error,
        **_said(adapter.file),
    )


def _unusable(path: Path, error: str) -> Facts:
    try:
        file = read_file(path)
    except AdapterError:
        return Facts(error=error)
    return Facts(base_model=base_model_hint(file.metadata) or "unknown", error=error, **_said(file))


def _without_name(error: AdapterError, path: Path) -> str:
    """The entry has the name already."""
    return str(error).removeprefix(f"{shown(path.name)}: ").removeprefix(f"{shown(path)}: ")


def _said(file: TensorFile) -> dict[str, Any]:
    """What the metadata says."""
    words = (shown(word) for word in trigger_words(file.metadata)[:_TRIGGER_WORDS])
    return {
        "title": shown(title(file.metadata) or ""),
        "trigger_words": tuple(words),
        "tensors": len(file.tensors),
        "thumbnail": "modelspec.thumbnail" in file.metadata,
    }


def hash_whole(path: Path) -> Hashes:
    """Both hashes in one pass. It reads, and does not map, so that a file cut short meanwhile is no crash.

    Raises OSError.
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

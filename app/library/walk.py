"""The walk over a folder of adapters: its files, and whether it has changed since."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from lorablend.adapters.wording import shown
from lorablend.app.files import SUFFIX
from lorablend.app.library.preview import picture_beside

__all__ = ["ScannedFile", "Walk", "walk"]

_SETTLED = 3 * 10**9  # nanoseconds; some file systems tell the time of a change to two seconds


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


@dataclass(frozen=True)
class Walk:
    """What a walk found.

    Attributes:
        root: The folder.
        files: Sorted by path.
        folders: When each folder changed last, in nanoseconds since 1970; -1 if it may change unnoticed. A folder
            changes when a file in it is added, removed or renamed, not when one is rewritten in place.
    """

    root: Path
    files: list[ScannedFile]
    folders: dict[str, int]

    @property
    def has_changed(self) -> bool:
        """Whether a folder has changed since; much quicker than another walk."""
        try:
            return any(os.stat(self.root / name).st_mtime_ns != changed for name, changed in self.folders.items())
        except OSError:
            return True


def walk(folder: Path) -> Walk:
    """List the adapter files of a folder at any depth, without hidden files and folders.

    A link that leads out of the folder is listed as refused and not followed: someone who can create a link must not
    be able to make the program read, show or serve any other file of the machine.

    Args:
        folder: The folder, with links resolved.
    """
    files: list[ScannedFile] = []
    folders: dict[str, int] = {}
    waiting = [""]
    settled = time.time_ns() - _SETTLED
    while waiting:
        here = waiting.pop()
        try:
            changed = os.stat(folder / here).st_mtime_ns
            with os.scandir(folder / here) as listed:
                entries = [(entry, _is_folder(entry)) for entry in listed]
        except OSError:  # removed meanwhile, or not readable
            continue
        folders[here] = changed if changed < settled else -1
        neighbours = {entry.name for entry, is_folder in entries if not is_folder}
        for entry, is_folder in entries:
            if entry.name.startswith("."):
                continue
            name = f"{here}/{entry.name}" if here else entry.name
            if not is_folder:
                if entry.name.lower().endswith(SUFFIX):
                    files.append(_scan_file(entry, name, folder, neighbours))
            elif not entry.is_symlink():
                waiting.append(name)
            elif not _leads_inside(folder / name, folder):
                files.append(ScannedFile(name, refused=_LEADS_OUT))
    return Walk(folder, sorted(files, key=lambda file: file.file), folders)


_LEADS_OUT = "a link out of the folder, which is not followed; put the file itself here"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link
        return False


def _scan_file(entry: os.DirEntry[str], file: str, folder: Path, neighbours: set[str]) -> ScannedFile:
    if not _is_text(file):
        return ScannedFile(shown(file), refused="its name is not valid UTF-8; rename it")
    try:
        status = entry.stat()
        if entry.is_symlink() and not _leads_inside(folder / file, folder):
            return ScannedFile(file, refused=_LEADS_OUT)
        if not os.access(entry.path, os.R_OK):
            return ScannedFile(file, refused="cannot be read (Permission denied)")
    except OSError as error:  # a dangling or circular link, or a file that has just been deleted
        return ScannedFile(file, refused=f"cannot be read ({error.strerror or error})")
    picture = picture_beside(entry.name, neighbours)
    preview = file[: len(file) - len(entry.name)] + picture if picture else ""
    # Reduced to what SQLite can store: some file systems have inodes up to 2⁶⁴, or dates in far centuries.
    return ScannedFile(file, status.st_size, status.st_mtime_ns % 2**63, status.st_ino % 2**63, preview)


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

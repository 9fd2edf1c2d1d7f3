"""The picture files of a folder, and which of its folders have changed since they were last listed."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["BIN", "Listing", "State", "list_all"]

BIN = "bin"
_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
_BYTE = re.compile("[\ud800-\udfff]")  # from a name that is not valid UTF-8, which neither SQLite nor JSON accepts
_SETTLED = 3 * 10**9  # nanoseconds; some file systems tell the time of a change to two seconds

State = tuple[int, int]
"""The time of change in nanoseconds, and the size in bytes."""


@dataclass
class _Folder:
    """What a folder held when it was listed, by names with slashes; `changed` is -1 if it may change unnoticed."""

    changed: int = -1
    pictures: dict[str, State] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)


class Listing:
    """The folders below `root`, except the bin.

    A folder's own time of change tells that a file in it was added, removed, renamed or replaced; it does not tell that
    one was rewritten in place. So a hundred thousand pictures cost as many looks only the first time.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, _Folder] = {}

    def forget(self) -> None:
        """Let the next call of `changed` list everything."""
        self._known = {}

    def changed(self, *, thoroughly: bool) -> dict[str, dict[str, State]]:
        """The pictures of each folder that is new, has changed or is gone; of every folder if `thoroughly`."""
        found: dict[str, dict[str, State]] = {}
        now: dict[str, _Folder] = {}
        with os.scandir(self._root) as entries:
            waiting = [one.name for one in entries if one.name != BIN and one.is_dir(follow_symlinks=False)]
        while waiting:
            name = waiting.pop()
            before = self._known.get(name)
            try:
                changed, started = os.stat(self._root / name).st_mtime_ns, time.time_ns()
                if thoroughly or before is None or before.changed != changed:
                    before = _listed(self._root, name)
                    found[name], before.pictures = before.pictures, {}
                    before.changed = changed if changed < started - _SETTLED else -1
            except (FileNotFoundError, NotADirectoryError):  # removed meanwhile
                continue
            now[name] = before
            waiting += before.folders
        found |= {name: {} for name in self._known.keys() - now.keys()}
        self._known = now
        return found


def list_all(folder: Path) -> list[str]:
    """The names of all pictures in a folder at any depth, sorted; none if there is no such folder, or a link to one."""
    if folder.is_symlink():
        return []
    names: list[str] = []
    waiting = [""]
    while waiting:
        try:
            here = _listed(folder, waiting.pop())
        except (FileNotFoundError, NotADirectoryError):
            continue
        names += here.pictures
        waiting += here.folders
    return sorted(names)


def _listed(root: Path, name: str) -> _Folder:
    """Links are left out, so that no file from elsewhere is served."""
    here = _Folder()
    if _BYTE.search(name):
        return here
    with os.scandir(root / name) as entries:
        for entry in entries:
            inside = f"{name}/{entry.name}" if name else entry.name
            if entry.is_dir(follow_symlinks=False):
                here.folders.append(inside)
            elif (
                entry.name.lower().endswith(_SUFFIXES)
                and not entry.name.startswith(".")
                and not _BYTE.search(entry.name)
                and entry.is_file(follow_symlinks=False)
            ):
                with suppress(FileNotFoundError):  # removed meanwhile
                    status = entry.stat(follow_symlinks=False)
                    here.pictures[inside] = status.st_mtime_ns, status.st_size
    return here

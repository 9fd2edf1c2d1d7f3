"""The user's marks on adapters (favourite, tags, last use), in a JSON file of their own.

Unlike the index, they cannot be rebuilt from the adapters, so their file is plain enough to be read, repaired and
copied by hand. The key is the adapter's SHA-256: a file that is moved, renamed or brought back keeps its marks, and two
copies of one file share them.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.atomic import atomic_write

__all__ = ["Mark", "Marks"]

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The marks of one adapter.

    Attributes:
        name: What the adapter was called when it was last marked.
        favourite: Whether it is a favourite.
        tags: The user's tags.
        last_used: ISO 8601 in UTC, or None.
    """

    name: str = ""
    favourite: bool = False
    tags: tuple[str, ...] = ()
    last_used: str | None = None


class Marks:
    """The marks in the file `path`; whoever changes it holds the lock file `lock`."""

    def __init__(self, path: Path, lock: Path) -> None:
        self._path = path
        self._lock = lock

    @property
    def stamp(self) -> tuple[int, ...]:
        """What changes when the marks do: each change writes a new file."""
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return status.st_ino, status.st_mtime_ns, status.st_size

    def read(self) -> dict[str, Mark]:
        """Read all marks, by SHA-256; {} if there is no file.

        Raises:
            AdapterError: The file is damaged, or of a newer version.
        """
        try:
            content = json.loads(self._path.read_text("utf-8"))
            if content["version"] != _VERSION:
                raise AdapterError(
                    f"{self._path}: version {content['version']}, this lorablend reads {_VERSION}; use a newer one"
                )
            return {sha256: _mark(fields) for sha256, fields in content["adapters"].items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise AdapterError(f"{self._path}: cannot be read as marks ({error}); fix it or move it away") from error

    def change(self, sha256: str, name: str, **changes: Any) -> None:
        """Change some marks of one adapter.

        Raises:
            AdapterError: The marks cannot be written.
        """
        try:
            with FileLock(self._lock):  # no other process may write between reading and writing
                marks = self.read()
                marks[sha256] = replace(marks.get(sha256, Mark()), name=name, **changes)
                self._write(marks)
        except OSError as error:
            raise AdapterError(
                f"{self._path}: marks cannot be written ({error.strerror or error}); use a folder that you may write to"
            ) from error

    def _write(self, marks: Mapping[str, Mark]) -> None:
        content = {"version": _VERSION, "adapters": {sha256: asdict(mark) for sha256, mark in sorted(marks.items())}}
        with atomic_write(self._path) as part, part.open("w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=1, ensure_ascii=False)
            stream.flush()
            os.fsync(stream.fileno())  # a power cut must not leave an empty file in its place


def _mark(fields: Mapping[str, Any]) -> Mark:
    mark = Mark(**{**fields, "tags": tuple(fields.get("tags", ()))})
    if not isinstance(mark.favourite, bool) or not all(isinstance(tag, str) for tag in mark.tags):
        raise ValueError("favourite must be true or false, tags must be strings")
    return mark

"""What people add to an adapter: favourite, tags, when it was used last. In a JSON file, not in the index.

The index can be made again from the files; this cannot, so it has a file of its own, plain enough to be read, mended
and copied by hand. It goes by the SHA-256 of the adapter: a file that is moved, renamed or comes back has its marks
again. Two copies of one file share them.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from lorablend.adapters.errors import AdapterError

__all__ = ["Mark", "Marks"]

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The marks of one adapter. `name` is what it was called when it was marked; `last_used` is ISO 8601, in UTC."""

    name: str = ""
    favourite: bool = False
    tags: tuple[str, ...] = ()
    last_used: str | None = None


class Marks:
    """The file `path`; `lock` is a file that whoever changes it holds."""

    def __init__(self, path: Path, lock: Path) -> None:
        self._path = path
        self._lock = lock

    def read(self) -> dict[str, Mark]:
        """All marks by SHA-256; {} without a file. Raises AdapterError for a file that makes no sense."""
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
            raise AdapterError(f"{self._path}: not readable as marks ({error}); mend it or move it away") from error

    def change(self, sha256: str, name: str, **changes: Any) -> None:
        """Change some marks of one adapter. Raises AdapterError if they cannot be kept."""
        try:
            with FileLock(self._lock):  # between reading and writing nobody else may write
                marks = self.read()
                marks[sha256] = replace(marks.get(sha256, Mark()), name=name, **changes)
                self._write(marks)
        except OSError as error:
            raise AdapterError(
                f"{self._path}: marks cannot be written ({error.strerror or error}); use a folder that you may write to"
            ) from error

    def _write(self, marks: Mapping[str, Mark]) -> None:
        content = {"version": _VERSION, "adapters": {sha256: asdict(mark) for sha256, mark in sorted(marks.items())}}
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}.partial")
        try:
            with partial.open("w", encoding="utf-8") as stream:
                json.dump(content, stream, indent=1, ensure_ascii=False)
                stream.flush()
                os.fsync(stream.fileno())  # a power cut must not leave an empty file in its place
            os.replace(partial, self._path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _mark(fields: Mapping[str, Any]) -> Mark:
    mark = Mark(**{**fields, "tags": tuple(fields.get("tags", ()))})
    if not isinstance(mark.favourite, bool) or not all(isinstance(tag, str) for tag in mark.tags):
        raise ValueError("favourite is true or false, tags are texts")
    return mark

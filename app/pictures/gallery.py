"""The gallery: an index in SQLite of pictures on disk, which is made again from the files if it is lost.

Pictures lie by day, `2026-11-21/120501-7.png`. A deleted one goes to the folder `bin` beside the days, and can come
back. The files are the truth: what was added or removed behind the gallery's back is seen by the next `scan`.
"""

from __future__ import annotations

import io
import json
import os
import re
import sqlite3
import threading
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from lorablend.adapters import parse_prompt
from lorablend.adapters.errors import BlendError, NotFoundError, RequestError
from lorablend.app.database import open_database
from lorablend.app.pictures.infotext import parse_infotext
from lorablend.app.pictures.png import look

__all__ = ["Gallery", "Picture"]

_BIN = "bin"
_VERSION = 1
_SCHEMA = """
CREATE TABLE pictures (
    file TEXT PRIMARY KEY,
    mtime_ns INTEGER NOT NULL,
    size INTEGER NOT NULL,
    prompt TEXT NOT NULL,
    negative_prompt TEXT NOT NULL,
    seed INTEGER,
    adapters TEXT NOT NULL,
    model TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    parameters TEXT NOT NULL,
    favourite INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""
_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
_BYTE = re.compile("[\ud800-\udfff]")  # of a name that is no text, which neither the index nor JSON takes


@dataclass(frozen=True, kw_only=True)
class Picture:
    """file: its name in the gallery, with slashes. seed: None where the file says none. adapters: names.

    parameters: the settings as text, "" where the file has none. width, height: pixels. created: seconds since 1970.
    """

    file: str
    created: float
    prompt: str
    negative_prompt: str
    seed: int | None
    adapters: tuple[str, ...]
    model: str
    width: int
    height: int
    parameters: str
    favourite: bool


class Gallery:
    """The pictures below `folder`; `database` is the index. For any number of threads of one process."""

    def __init__(self, folder: Path, database: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*/.*.partial"):  # by a process that was killed
            left.unlink(missing_ok=True)
        self._lock = threading.RLock()
        try:
            self._db = open_database(database, _SCHEMA, _VERSION)
        except sqlite3.OperationalError:  # a full disk, most likely; the index may be whole
            raise
        except sqlite3.DatabaseError:  # damaged: the files know all but the favourites
            for part in ("", "-wal", "-shm"):
                Path(f"{database}{part}").unlink(missing_ok=True)
            self._db = open_database(database, _SCHEMA, _VERSION)
        self.scan()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def day(self, when: datetime | None = None) -> Path:
        """The folder for a picture of that day, by default of today."""
        return self._folder / f"{when or datetime.now():%Y-%m-%d}"

    def scan(self) -> None:
        """Take over what was added, changed or removed on disk."""
        with self._lock:  # the listing too: what is added after it must not count as gone
            there = self._there()
            rows = self._db.execute("SELECT file, mtime_ns, size FROM pictures")
            known = {row["file"]: (row["mtime_ns"], row["size"]) for row in rows}
            gone = [(name,) for name in known.keys() - there.keys()]
            self._db.executemany("DELETE FROM pictures WHERE file = ?", gone)
        for name in [name for name, seen in there.items() if known.get(name) != seen]:
            with self._lock:  # for one picture, so that nobody waits for all of them
                self._index(name)

    def add(self, path: Path) -> Picture:
        """Take in a picture that was just written below the gallery's folder."""
        name = self._name(path)
        with self._lock:
            self._index(name)
            return self.get(name)

    def get(self, file: str) -> Picture:
        """Raises NotFoundError if the gallery has no such picture."""
        with self._lock:
            row = self._db.execute("SELECT * FROM pictures WHERE file = ?", (file,)).fetchone()
        if row is None:
            raise NotFoundError(f"the gallery has no picture {file[:80]!r}")
        return _picture(row)

    def path(self, file: str) -> Path:
        """Where a picture is. NotFoundError as for `get`: a name that is not in the index is never a path."""
        return self._folder / self.get(file).file

    def find(
        self,
        search: str = "",
        *,
        adapter: str | None = None,
        seed: int | None = None,
        favourite: bool | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[Picture]:
        """The newest first. search: words that are all in the prompt. after: the last picture of the page before."""
        where, values = ["1"], []
        for word in search.split():
            where.append("prompt LIKE ? ESCAPE '!'")
            values.append("%" + word.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%")
        if adapter is not None:
            where.append("EXISTS (SELECT 1 FROM json_each(adapters) WHERE value = ?)")
            values.append(adapter)
        if seed is not None:
            where.append("seed = ?")
            values.append(seed)
        if favourite is not None:
            where.append("favourite = ?")
            values.append(int(favourite))
        if after is not None:
            where.append("(mtime_ns, file) < (SELECT mtime_ns, file FROM pictures WHERE file = ?)")
            values.append(after)
        query = f"SELECT * FROM pictures WHERE {' AND '.join(where)} ORDER BY mtime_ns DESC, file DESC LIMIT ?"
        with self._lock:
            return [_picture(row) for row in self._db.execute(query, (*values, limit))]

    def adapters(self) -> list[str]:
        """The names of all that the pictures say, as `find` takes them."""
        query = "SELECT DISTINCT value FROM pictures, json_each(pictures.adapters) ORDER BY value COLLATE NOCASE"
        with self._lock:
            return [row["value"] for row in self._db.execute(query)]

    def mark(self, file: str, *, favourite: bool) -> Picture:
        with self._lock:
            self.get(file)
            self._db.execute("UPDATE pictures SET favourite = ? WHERE file = ?", (int(favourite), file))
            return self.get(file)

    def delete(self, file: str) -> None:
        """Move a picture to the bin."""
        with self._lock:
            self._move(self.path(file), self._folder / _BIN / file)
            self._db.execute("DELETE FROM pictures WHERE file = ?", (file,))

    def bin(self) -> list[str]:
        """The names of what is in the bin."""
        return sorted(self._name(path, self._folder / _BIN) for path in _pictures(self._folder / _BIN))

    def files(self) -> set[str]:
        """The names of all pictures, those in the bin too."""
        with self._lock:
            return {row["file"] for row in self._db.execute("SELECT file FROM pictures")} | set(self.bin())

    def restore(self, file: str) -> Picture:
        """Take a picture out of the bin. Raises NotFoundError if it is not there."""
        with self._lock:
            if file not in self.bin():
                raise NotFoundError(f"the bin has no picture {file[:80]!r}")
            self._move(self._folder / _BIN / file, self._folder / file)
            self._index(file)
            return self.get(file)

    def empty_bin(self) -> None:
        """Delete what is in the bin for good."""
        with self._lock:
            for file in self.bin():
                (self._folder / _BIN / file).unlink()

    def zip(self, files: Iterable[str]) -> bytes:
        """The pictures in one archive, not compressed: they are already."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for file in files:
                archive.write(self.path(file), file)
        return buffer.getvalue()

    def _there(self) -> dict[str, tuple[int, int]]:
        """Of each picture on disk: when it was changed, in ns, and its size in bytes."""
        days = [path for path in self._folder.iterdir() if path.is_dir() and path.name != _BIN]
        found: dict[str, tuple[int, int]] = {}
        for path in [path for day in days for path in _pictures(day)]:
            with suppress(FileNotFoundError):  # removed meanwhile
                stat = path.stat()
                found[self._name(path)] = stat.st_mtime_ns, stat.st_size
        return found

    def _name(self, path: Path, root: Path | None = None) -> str:
        return PurePosixPath(path.relative_to(root or self._folder)).as_posix()

    def _move(self, old: Path, new: Path) -> None:
        if new.exists():
            raise RequestError(f"{new.name} is there already; rename one of the two")
        new.parent.mkdir(parents=True, exist_ok=True)
        os.replace(old, new)

    def _index(self, name: str) -> None:
        """Read the file's own words; a file that is no picture is left out."""
        path = self._folder / name
        try:
            stat = path.stat()
            (width, height), texts = look(path)
        except (RequestError, FileNotFoundError):
            self._db.execute("DELETE FROM pictures WHERE file = ?", (name,))
            return
        record = texts.record
        if record is not None:
            values: tuple[Any, ...] = (
                record.request.prompt,
                record.request.negative_prompt or "",
                record.seed,
                json.dumps([adapter.name for adapter in record.adapters]),
                record.model,
            )
        else:
            found = parse_infotext(texts.parameters or "")
            seed = found.settings.get("Seed", "")
            number = int(seed) if seed.isdecimal() and int(seed) < 2**63 else None
            prompt, adapters = _without_tags(found.prompt)
            model = found.settings.get("Model", "")
            values = (prompt, found.negative_prompt, number, json.dumps(adapters), model)
        try:
            self._db.execute(
                "INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (file) DO UPDATE SET "
                + ", ".join(f"{column} = excluded.{column}" for column in _READ),
                (name, stat.st_mtime_ns, stat.st_size, *values, width, height, texts.parameters or ""),
            )
        except (OverflowError, UnicodeEncodeError):  # a seed or half a character that no lorablend wrote
            self._db.execute("DELETE FROM pictures WHERE file = ?", (name,))


def _without_tags(prompt: str) -> tuple[str, list[str]]:
    """Another program's prompt, and the adapters that its tags name."""
    try:
        text, tags = parse_prompt(prompt)
    except BlendError:
        return prompt, []
    return text, [tag[0] if isinstance(tag, tuple) else tag["adapter"] for tag in tags if "items" not in tag]


_READ = ("mtime_ns", "size", "prompt", "negative_prompt", "seed", "adapters", "model", "width", "height", "parameters")


def _pictures(folder: Path) -> list[Path]:
    """Files only, no links: what is served lies here and nowhere else."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _SUFFIXES
        and not path.name.startswith(".")
        and not _BYTE.search(str(path.relative_to(folder.parent)))
        and path.is_file()
        and not path.is_symlink()
    ]


def _picture(row: sqlite3.Row) -> Picture:
    return Picture(
        file=row["file"],
        created=row["mtime_ns"] / 1e9,
        prompt=row["prompt"],
        negative_prompt=row["negative_prompt"],
        seed=row["seed"],
        adapters=tuple(json.loads(row["adapters"])),
        model=row["model"],
        width=row["width"],
        height=row["height"],
        parameters=row["parameters"],
        favourite=bool(row["favourite"]),
    )

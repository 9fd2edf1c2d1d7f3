"""The gallery: pictures on disk with an index in SQLite, which is rebuilt from the files if it is lost.

Pictures are sorted into one folder per day, `2026-11-21/120501-7.png`. A deleted picture moves to the folder `bin` next
to the days and can be restored. The files are authoritative: the next `scan` notices pictures that other programs added
or removed.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
import threading
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from lorablend.adapters.errors import NotFoundError, RequestError
from lorablend.app.database import open_database
from lorablend.app.pictures.listing import BIN, Listing, State, list_all
from lorablend.app.pictures.metadata.found import Found
from lorablend.app.pictures.metadata.programs import read_metadata
from lorablend.app.pictures.png import PngTexts, look

__all__ = ["Gallery", "GalleryPicture"]

_VERSION = 2
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
_INDEXES = """
CREATE INDEX by_time ON pictures (mtime_ns, file);
CREATE INDEX by_adapters ON pictures (adapters);
"""


@dataclass(frozen=True, kw_only=True)
class GalleryPicture:
    """One picture of the gallery.

    Attributes:
        file: Its path in the gallery, with slashes.
        created: Seconds since 1970.
        prompt, negative_prompt: As the file records them.
        seed: None if the file does not record it.
        adapters: Names of the adapters.
        model: Name of the model folder.
        width, height: Pixels.
        parameters: The settings as text, "" if the file has none.
        favourite: Whether the user marked it.
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
    """The pictures in `folder`, with their index in `database`. Safe for the threads of one process."""

    def __init__(self, folder: Path, database: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob("*/.*.part"):  # left by a process that was killed
            part.unlink(missing_ok=True)
        self._lock = threading.RLock()
        self._listing = Listing(folder)
        try:
            self._db = open_database(database, _SCHEMA + _INDEXES, _VERSION, (_INDEXES,))
        except sqlite3.OperationalError:  # probably a full disk; the index may be intact
            raise
        except sqlite3.DatabaseError:  # damaged; the files contain everything but the favourites
            for ending in ("", "-wal", "-shm"):
                Path(f"{database}{ending}").unlink(missing_ok=True)
            self._db = open_database(database, _SCHEMA + _INDEXES, _VERSION, (_INDEXES,))
        self.scan()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def day(self, when: datetime | None = None) -> Path:
        """The folder for pictures of a day, by default of today."""
        return self._folder / f"{when or datetime.now():%Y-%m-%d}"

    def scan(self, *, thoroughly: bool = True) -> None:
        """Bring the index up to date with the files.

        Args:
            thoroughly: Look at every file. Otherwise only at those in folders that have changed since the last scan,
                which misses a file that another program rewrote in place.
        """
        try:
            with self._lock:  # also while listing, or a picture that is added meanwhile would count as removed
                changed = self._listing.changed(thoroughly=thoroughly)
                files = {name: state for folder in changed.values() for name, state in folder.items()}
                known = self._known(None if thoroughly else changed)
                gone = [(name,) for name in known.keys() - files.keys()]
                self._db.executemany("DELETE FROM pictures WHERE file = ?", gone)
            for name in [name for name, state in files.items() if known.get(name) != state]:
                with self._lock:  # for one picture at a time, so that other threads need not wait for all of them
                    self._index(name)
        except BaseException:
            self._listing.forget()  # what was listed is not indexed
            raise

    def _known(self, folders: Iterable[str] | None) -> dict[str, State]:
        """The pictures that the index has in these folders, without those below; all for None."""
        query = "SELECT file, mtime_ns, size FROM pictures"
        if folders is None:
            return {file: (mtime_ns, size) for file, mtime_ns, size in self._db.execute(query)}
        query += " WHERE file > ? AND file < ?"
        return {
            file: (mtime_ns, size)
            for folder in folders
            for file, mtime_ns, size in self._db.execute(query, (f"{folder}/", f"{folder}0"))  # 0 is next after /
            if file.rfind("/") == len(folder)
        }

    def add(self, path: Path) -> GalleryPicture:
        """Add a picture that was just written to one of the gallery's folders."""
        name = self._name(path)
        with self._lock:
            self._index(name)
            return self.get(name)

    def get(self, file: str) -> GalleryPicture:
        """The picture of this name. Raises NotFoundError if there is none."""
        with self._lock:
            row = self._db.execute("SELECT * FROM pictures WHERE file = ?", (file,)).fetchone()
        if row is None:
            raise NotFoundError(f"the gallery has no picture {file[:80]!r}")
        return _picture(row)

    def path(self, file: str) -> Path:
        """The path of a picture. Raises NotFoundError like `get`, so a name outside the index never becomes a path."""
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
    ) -> list[GalleryPicture]:
        """Find pictures, the newest first.

        Args:
            search: Words that must all be in the prompt.
            adapter: Name of an adapter that was used.
            seed: The picture's seed.
            favourite: True for favourites only, False for all others.
            limit: Pictures at most.
            after: The last picture of the previous page.
        """
        where, values = ["1"], []
        for word in search.split():
            where.append("prompt LIKE ? ESCAPE '!'")
            values.append("%" + word.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%")
        if adapter is not None:
            where.append(
                "adapters IN (SELECT adapters FROM (SELECT DISTINCT adapters FROM pictures) AS used "
                "WHERE EXISTS (SELECT 1 FROM json_each(used.adapters) WHERE value = ?))"
            )
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
        """Names of all adapters that occur, as `find` takes them."""
        query = (  # few combinations occur, whatever the number of pictures
            "SELECT DISTINCT value FROM (SELECT DISTINCT adapters FROM pictures) AS used, json_each(used.adapters) "
            "ORDER BY value COLLATE NOCASE"
        )
        with self._lock:
            return [row["value"] for row in self._db.execute(query)]

    def mark(self, file: str, *, favourite: bool) -> GalleryPicture:
        with self._lock:
            self.get(file)
            self._db.execute("UPDATE pictures SET favourite = ? WHERE file = ?", (int(favourite), file))
            return self.get(file)

    def delete(self, file: str) -> None:
        """Move a picture to the bin."""
        with self._lock:
            self._move(self.path(file), self._folder / BIN / file)
            self._db.execute("DELETE FROM pictures WHERE file = ?", (file,))

    def bin(self) -> list[str]:
        """Names of the pictures in the bin."""
        return list_all(self._folder / BIN)

    def files(self) -> set[str]:
        """Names of all pictures, including those in the bin."""
        with self._lock:
            return {row["file"] for row in self._db.execute("SELECT file FROM pictures")} | set(self.bin())

    def restore(self, file: str) -> GalleryPicture:
        """Move a picture back from the bin. Raises NotFoundError if it is not there."""
        with self._lock:
            if file not in self.bin():
                raise NotFoundError(f"the bin has no picture {file[:80]!r}")
            self._move(self._folder / BIN / file, self._folder / file)
            self._index(file)
            return self.get(file)

    def empty_bin(self) -> None:
        """Delete the pictures in the bin permanently."""
        with self._lock:
            for file in self.bin():
                (self._folder / BIN / file).unlink()

    def zip(self, files: Iterable[str]) -> bytes:
        """The pictures in one archive, stored without further compression."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for file in files:
                archive.write(self.path(file), file)
        return buffer.getvalue()

    def _name(self, path: Path) -> str:
        return PurePosixPath(path.relative_to(self._folder)).as_posix()

    def _move(self, old: Path, new: Path) -> None:
        if new.exists():
            raise RequestError(f"there is another picture {new.name}; rename one of the two")
        new.parent.mkdir(parents=True, exist_ok=True)
        os.replace(old, new)

    def _index(self, name: str) -> None:
        """Read a file into the index; one that is not a picture is left out."""
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
            found = _read(path)
            settings = found.settings
            adapters = [item["adapter"] for item in settings.get("blend", {}).get("items", ())]
            values = (
                settings.get("prompt", ""),
                settings.get("negative_prompt", ""),
                settings.get("seed"),
                json.dumps(adapters),
                settings.get("model", ""),
            )
            texts = PngTexts(found.text, None)
        try:
            self._db.execute(
                "INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (file) DO UPDATE SET "
                + ", ".join(f"{column} = excluded.{column}" for column in _READ),
                (name, stat.st_mtime_ns, stat.st_size, *values, width, height, texts.parameters or ""),
            )
        except (OverflowError, UnicodeEncodeError):  # a seed or a broken character that another program wrote
            self._db.execute("DELETE FROM pictures WHERE file = ?", (name,))


def _read(path: Path) -> Found:
    """What a picture of another program says; nothing, if that cannot be read."""
    try:
        return read_metadata(path, path.name)
    except RequestError:
        return Found("")


_READ = ("mtime_ns", "size", "prompt", "negative_prompt", "seed", "adapters", "model", "width", "height", "parameters")


def _picture(row: sqlite3.Row) -> GalleryPicture:
    return GalleryPicture(
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

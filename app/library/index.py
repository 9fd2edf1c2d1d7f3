"""The index of a library in SQLite: one row per adapter file. It can be deleted at any time and is rebuilt.

Every call opens a connection of its own, so threads and programs can share an index, and one that is deleted or damaged
meanwhile is rebuilt by the next call.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from lorablend.adapters.errors import ResourceError
from lorablend.app.library.scan import AdapterFacts, Hashes
from lorablend.app.library.walk import ScannedFile

__all__ = ["HASHED", "HEADER", "LISTED", "Index", "Row"]

_T = TypeVar("_T")

_VERSION = 1
_SETTLED = 10**8  # nanoseconds; two changes within the clock of a disk may look like one
_PATIENCE = 30  # seconds that a call waits for another one that is writing

# How much of a file has been read: nothing, its header, all of it.
LISTED, HEADER, HASHED = 0, 1, 2

_SCHEMA = """
CREATE TABLE files (
    file TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    preview TEXT NOT NULL,
    refused TEXT NOT NULL,
    stage INTEGER NOT NULL,
    sha256 TEXT,
    autov3 TEXT,
    title TEXT NOT NULL DEFAULT '',
    base_model TEXT NOT NULL DEFAULT 'unknown',
    algorithms TEXT NOT NULL DEFAULT '[]',
    ranks TEXT NOT NULL DEFAULT '[]',
    trigger_words TEXT NOT NULL DEFAULT '[]',
    tensors INTEGER NOT NULL DEFAULT 0,
    thumbnail INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX by_sha256 ON files (sha256);
"""
_LISTS = {"algorithms", "ranks", "trigger_words"}
_FACTS = [field.name for field in fields(AdapterFacts)]


@dataclass(frozen=True)
class Row:
    """One file in the index; `hashes` is None until `stage` is HASHED, and for a file that cannot be read."""

    scanned: ScannedFile
    stage: int
    facts: AdapterFacts
    hashes: Hashes | None

    @property
    def error(self) -> str:
        """Why the file cannot be used, or "" if no reason is known."""
        return self.scanned.refused or self.facts.error


class Index:
    """The database at `path`; the lock file `lock` is held while it is created."""

    def __init__(self, path: Path, lock: Path) -> None:
        self._path = path
        self._lock = lock

    @property
    def stamp(self) -> tuple[int, ...] | None:
        """What changes when the index does; None if it has changed just now, so that a further change may not show."""
        stamp: list[int] = []
        for ending in ("", "-wal"):
            try:
                status = self._path.with_name(self._path.name + ending).stat()
            except OSError:
                continue
            if status.st_mtime_ns > time.time_ns() - _SETTLED:
                return None
            stamp += (status.st_ino, status.st_mtime_ns, status.st_size)
        return tuple(stamp)

    def rows(self) -> list[Row]:
        """All rows, sorted by file."""
        return self._run(lambda db: [_row(values) for values in db.execute("SELECT * FROM files ORDER BY file")])

    def row(self, file: str) -> Row | None:
        """The row of a file, or None."""
        return self._only("SELECT * FROM files WHERE file = ?", file)

    def row_of(self, sha256: str) -> Row | None:
        """The row of a file with this SHA-256, or None."""
        return self._only("SELECT * FROM files WHERE sha256 = ? LIMIT 1", sha256)

    def _only(self, query: str, value: str) -> Row | None:
        values = self._run(lambda db: db.execute(query, (value,)).fetchone())
        return _row(values) if values else None

    def waiting(self, stage: int) -> list[Row]:
        """The rows that have not reached a stage, small files first, so that most of them are done soon."""
        query = "SELECT * FROM files WHERE stage < ? ORDER BY size, file"
        return self._run(lambda db: [_row(values) for values in db.execute(query, (stage,))])

    def update(self, files: Sequence[ScannedFile], still_there: Callable[[str], bool]) -> None:
        """Bring the index up to date with the walk, in one transaction; unchanged and moved files keep their rows.

        Args:
            files: All files of the walk.
            still_there: Asked before a row is removed, because the file may have been added after the walk.
        """

        def work(db: sqlite3.Connection) -> None:
            with _transaction(db):
                known = {row.scanned.file: row for row in map(_row, db.execute("SELECT * FROM files"))}
                gone = {file for file in known.keys() - {scanned.file for scanned in files} if not still_there(file)}
                moved = {_identity(known[file].scanned): file for file in gone if known[file].scanned.inode}
                for scanned in files:
                    before = known.get(scanned.file)
                    if before is None and (source := moved.pop(_identity(scanned), None)) is not None:
                        query = "UPDATE files SET file = ?, preview = ? WHERE file = ?"
                        db.execute(query, (scanned.file, scanned.preview, source))
                        gone.remove(source)
                    elif before is None or _version(before.scanned) != _version(scanned):
                        _insert(db, Row(scanned, HASHED if scanned.refused else LISTED, AdapterFacts(), None))
                    elif before.scanned.preview != scanned.preview:
                        db.execute("UPDATE files SET preview = ? WHERE file = ?", (scanned.preview, scanned.file))
                db.executemany("DELETE FROM files WHERE file = ?", [(file,) for file in gone])

        self._run(work)

    def advance(self, row: Row) -> None:
        """Replace the row of a file with one of a later stage, unless the file has changed or disappeared since."""

        def work(db: sqlite3.Connection) -> None:
            with _transaction(db):
                query = "SELECT * FROM files WHERE file = ? AND size = ? AND mtime_ns = ?"
                now = db.execute(query, (row.scanned.file, row.scanned.size, row.scanned.mtime_ns)).fetchone()
                if now is not None and now["stage"] < row.stage:
                    _insert(db, replace(row, scanned=_row(now).scanned))  # its picture may have changed meanwhile

        self._run(work)

    def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do the work; if the index is missing, damaged or of another version, rebuild it and try once more."""
        try:
            try:
                return self._attempt(work)
            except (_OtherVersion, sqlite3.DatabaseError) as error:
                if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
                    raise  # locked, or a full disk: a new index would not help
            self._make()
            return self._attempt(work)
        except sqlite3.Error as error:
            raise ResourceError(f"{self._path}: the index cannot be used ({error}); try again") from error

    def _attempt(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._connection() as db:
            if _version_of(db) != _VERSION:
                raise _OtherVersion
            db.execute("PRAGMA synchronous = NORMAL")
            return work(db)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            yield db
        finally:
            db.close()

    def _make(self) -> None:
        with FileLock(self._lock):
            try:
                with self._connection() as db:
                    if _version_of(db) == _VERSION:
                        db.execute("SELECT count(*) FROM files")
                        return  # another process has just created it
            except sqlite3.DatabaseError:
                pass
            for ending in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
            with self._connection() as db:
                db.execute("PRAGMA journal_mode = WAL")  # readers do not wait for writers
                db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")


class _OtherVersion(Exception):  # noqa: N818 - a signal within this file
    """The index is empty, or was created by another version of lorablend."""


def _version_of(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA user_version").fetchone()[0]


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _identity(scanned: ScannedFile) -> tuple[int, int, int]:
    """Values that a file keeps when it is moved within its disk."""
    return scanned.inode, scanned.size, scanned.mtime_ns


def _version(scanned: ScannedFile) -> tuple[int, int, str]:
    """Values that differ after a file was changed."""
    return scanned.size, scanned.mtime_ns, scanned.refused


def _row(values: sqlite3.Row) -> Row:
    scanned = ScannedFile(**{field.name: values[field.name] for field in fields(ScannedFile)})
    facts: dict[str, Any] = {
        name: tuple(json.loads(values[name])) if name in _LISTS else values[name] for name in _FACTS
    }
    facts["thumbnail"] = bool(facts["thumbnail"])
    hashes = Hashes(values["sha256"], values["autov3"]) if values["sha256"] else None
    return Row(scanned, values["stage"], AdapterFacts(**facts), hashes)


def _insert(db: sqlite3.Connection, row: Row) -> None:
    values: dict[str, Any] = {**vars(row.scanned), **vars(row.facts), "stage": row.stage}
    values |= vars(row.hashes) if row.hashes else {"sha256": None, "autov3": None}
    values |= {name: json.dumps(values[name], ensure_ascii=False) for name in _LISTS}
    names = ", ".join(values)
    db.execute(f"INSERT OR REPLACE INTO files ({names}) VALUES ({', '.join(f':{name}' for name in values)})", values)

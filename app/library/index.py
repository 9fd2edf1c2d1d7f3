"""The index of a library in SQLite: one row per adapter file. It can be deleted at any time and is made again.

Every call opens a connection of its own: threads and programs may use one index at once, and one that is deleted or
damaged meanwhile is made anew by the next call.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from filelock import FileLock

from lorablend.adapters.errors import ResourceError
from lorablend.app.library.scan import Facts, Found, Hashes

__all__ = ["HASHED", "HEADER", "LISTED", "Changes", "Index", "Row"]

_T = TypeVar("_T")

_VERSION = 1
_PATIENCE = 30  # seconds for which a call waits for another one that writes

# How much of a file has been looked at.
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
_FACTS = [field.name for field in fields(Facts)]


@dataclass(frozen=True)
class Row:
    """One file as the index knows it; `hashes` is None until `stage` is HASHED, and for a file that cannot be read."""

    found: Found
    stage: int
    facts: Facts
    hashes: Hashes | None

    @property
    def error(self) -> str:
        """Why the file cannot be used; "" if nothing is known against it."""
        return self.found.refused or self.facts.error


class Changes(NamedTuple):
    """What a look at the folder found; a file that was moved or renamed is none of the three."""

    added: int
    changed: int
    removed: int


class Index:
    """The database `path`; `lock` is a file that is held while it is made."""

    def __init__(self, path: Path, lock: Path) -> None:
        self._path = path
        self._lock = lock

    def rows(self) -> list[Row]:
        """All rows, in the order of the files' names."""
        return self._run(lambda db: [_row(values) for values in db.execute("SELECT * FROM files ORDER BY file")])

    def row(self, file: str) -> Row | None:
        """The row of one file."""
        return self._only("SELECT * FROM files WHERE file = ?", file)

    def row_of(self, sha256: str) -> Row | None:
        """A row of a file with this SHA-256."""
        return self._only("SELECT * FROM files WHERE sha256 = ? LIMIT 1", sha256)

    def _only(self, query: str, value: str) -> Row | None:
        values = self._run(lambda db: db.execute(query, (value,)).fetchone())
        return _row(values) if values else None

    def waiting(self, stage: int) -> list[Row]:
        """The rows that have not reached a stage, small files first, so that most are done soon."""
        query = "SELECT * FROM files WHERE stage < ? ORDER BY size, file"
        return self._run(lambda db: [_row(values) for values in db.execute(query, (stage,))])

    def update(self, found: Sequence[Found], still_there: Callable[[str], bool]) -> Changes:
        """Take over what the walk found, in one transaction: known files keep what is known about them.

        `still_there` is asked before a row is removed: the file may have come after the walk.
        """

        def work(db: sqlite3.Connection) -> Changes:
            with _transaction(db):
                known = {row.found.file: row for row in map(_row, db.execute("SELECT * FROM files"))}
                gone = {file for file in known.keys() - {one.file for one in found} if not still_there(file)}
                moved = {_identity(known[file].found): file for file in gone if known[file].found.inode}
                added = changed = 0
                for one in found:
                    before = known.get(one.file)
                    if before is None and (source := moved.pop(_identity(one), None)) is not None:
                        query = "UPDATE files SET file = ?, preview = ? WHERE file = ?"
                        db.execute(query, (one.file, one.preview, source))
                        gone.remove(source)
                    elif before is None or _version(before.found) != _version(one):
                        _insert(db, Row(one, HASHED if one.refused else LISTED, Facts(), None))
                        added += before is None
                        changed += before is not None
                    elif before.found.preview != one.preview:
                        db.execute("UPDATE files SET preview = ? WHERE file = ?", (one.preview, one.file))
                db.executemany("DELETE FROM files WHERE file = ?", [(file,) for file in gone])
                return Changes(added, changed, len(gone))

        return self._run(work)

    def advance(self, row: Row) -> bool:
        """Replace the row of a file by one of a later stage; False if the file has changed or gone since."""

        def work(db: sqlite3.Connection) -> bool:
            with _transaction(db):
                query = "SELECT * FROM files WHERE file = ? AND size = ? AND mtime_ns = ?"
                now = db.execute(query, (row.found.file, row.found.size, row.found.mtime_ns)).fetchone()
                if now is None:
                    return False
                if now["stage"] < row.stage:
                    _insert(db, replace(row, found=_row(now).found))  # its picture may be another by now
                return True

        return self._run(work)

    def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do the work; once more with a new index where the one there is missing, damaged or of another version."""
        try:
            try:
                return self._attempt(work)
            except (_OtherVersion, sqlite3.DatabaseError) as error:
                if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
                    raise  # locked, or a full disk: another index would not help
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
                        return  # somebody else has just made it
            except sqlite3.DatabaseError:
                pass
            for ending in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
            with self._connection() as db:
                db.execute("PRAGMA journal_mode = WAL")  # whoever reads does not wait for whoever writes
                db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")


class _OtherVersion(Exception):  # noqa: N818 - a signal within this file
    """The index is empty, or was made by another version of lorablend."""


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


def _identity(found: Found) -> tuple[int, int, int]:
    """A file that is moved within its disk keeps these."""
    return found.inode, found.size, found.mtime_ns


def _version(found: Found) -> tuple[int, int, str]:
    """A file that is unchanged keeps these."""
    return found.size, found.mtime_ns, found.refused


def _row(values: sqlite3.Row) -> Row:
    found = Found(**{field.name: values[field.name] for field in fields(Found)})
    facts: dict[str, Any] = {
        name: tuple(json.loads(values[name])) if name in _LISTS else values[name] for name in _FACTS
    }
    facts["thumbnail"] = bool(facts["thumbnail"])
    hashes = Hashes(values["sha256"], values["autov3"]) if values["sha256"] else None
    return Row(found, values["stage"], Facts(**facts), hashes)


def _insert(db: sqlite3.Connection, row: Row) -> None:
    values: dict[str, Any] = {**vars(row.found), **vars(row.facts), "stage": row.stage}
    values |= vars(row.hashes) if row.hashes else {"sha256": None, "autov3": None}
    values |= {name: json.dumps(values[name], ensure_ascii=False) for name in _LISTS}
    names = ", ".join(values)
    db.execute(f"INSERT OR REPLACE INTO files ({names}) VALUES ({', '.join(f':{name}' for name in values)})", values)

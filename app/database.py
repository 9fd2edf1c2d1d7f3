"""SQLite for the jobs and the gallery: one connection that threads share, whole after a kill."""

import sqlite3
from pathlib import Path

__all__ = ["open_database"]


def open_database(path: Path, schema: str, version: int) -> sqlite3.Connection:
    """Open a database, made with `schema` if it is not there; every statement is a transaction of its own.

    Raises sqlite3.DatabaseError where the file is none, or is damaged anywhere.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")  # all is there after a kill, if not after a power cut
    if not db.execute("PRAGMA user_version").fetchone()[0]:
        db.executescript(f"BEGIN; {schema} PRAGMA user_version={version}; COMMIT;")
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        db.close()
        raise sqlite3.DatabaseError(found)
    return db

"""SQLite for the jobs and the gallery: one connection that all threads share, and a file that survives a kill."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

__all__ = ["open_database"]


def open_database(path: Path, schema: str, version: int, upgrades: Sequence[str] = ()) -> sqlite3.Connection:
    """Open a database; every statement on it is a transaction of its own.

    Args:
        path: The file. It is made with `schema` if it does not exist.
        schema: SQL that makes the tables of `version`.
        version: The version of the schema, from 1 on.
        upgrades: SQL that turns version 1 into 2, 2 into 3 and so on.

    Raises:
        sqlite3.DatabaseError: The file is not a database, or any part of it is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")  # everything survives a kill, if not a power cut
    (before,) = db.execute("PRAGMA user_version").fetchone()
    if before < version:
        script = "\n".join(upgrades[before - 1 : version - 1]) if before else schema
        db.executescript(f"BEGIN; {script} PRAGMA user_version={version}; COMMIT;")
    (state,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if state != "ok":
        db.close()
        raise sqlite3.DatabaseError(state)
    return db

"""Jobs: what clients ask for, kept in SQLite until it is done, and handed to a worker one at a time.

A job is queued, running, and then done, failed or cancelled. The database has all that must outlive the process; how
far a running job is, and its preview, is in memory. After a kill the queued jobs are still queued, and one that was
running is queued again, at most twice, unless it was cancelled.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import LorablendError, RequestError
from lorablend.adapters.wording import shown
from lorablend.app.database import open_database

__all__ = ["ENDED", "STATES", "Job", "Jobs", "Progress", "QueueFullError"]

STATES = ("queued", "running", "done", "failed", "cancelled")
ENDED = ("done", "failed", "cancelled")
_ATTEMPTS = 3  # a job that takes the process down with it must not do so for ever
_VERSION = 1
# A running job that was cancelled has `ended` already: a worker that is killed before it stops must not revive it.
_SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    client TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued',
    attempts INTEGER NOT NULL DEFAULT 0,
    submitted REAL NOT NULL,
    started REAL,
    ended REAL,
    reason TEXT NOT NULL DEFAULT '',
    result TEXT NOT NULL DEFAULT 'null'
);
CREATE INDEX by_state ON jobs (state, number);
"""
# Of the clients that wait, the one whose last turn is longest ago; of its jobs, the oldest.
_NEXT = """
SELECT number FROM jobs AS waiting WHERE state = 'queued' AND kind IN (SELECT value FROM json_each(?)) ORDER BY
    (SELECT coalesce(max(started), 0) FROM jobs WHERE jobs.client = waiting.client), number
LIMIT 1
"""


class QueueFullError(LorablendError):
    """As many jobs wait as may wait. retry_after: seconds after which one more is likely to fit."""

    def __init__(self, limit: int, retry_after: int) -> None:
        super().__init__(f"{limit} jobs are waiting, which is the limit; try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True, kw_only=True)
class Progress:
    """step: done so far, of `steps` in the whole job. eta: seconds to the end. preview: a small PNG or JPEG."""

    step: int
    steps: int
    eta: float | None = None
    preview: bytes | None = None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job as it was when it was asked for. Times are seconds since 1970. reason: why it failed, one line.

    request and result are what JSON can say; result is None until the job is done. number counts all jobs.
    """

    number: int
    id: str
    kind: str
    client: str
    request: Any
    state: str
    attempts: int
    submitted: float
    started: float | None
    ended: float | None
    reason: str
    result: Any
    progress: Progress | None = None

    def is_stoppable(self, user: str) -> bool:
        """By that user, named as they logged in; "", who has the token or did not log in, may stop all."""
        return user in ("", self.client)


class Jobs:
    """The jobs in the database `path`, which is made if it is not there; `limit` of them may wait.

    For any number of threads of one process. Jobs that an earlier process left running are queued again, or failed if
    that was their third time. Raises RequestError for a damaged database.
    """

    def __init__(self, path: Path, limit: int = 64) -> None:
        self._limit = limit
        self._changed = threading.Condition(threading.RLock())
        self._progress: dict[str, Progress] = {}
        try:
            self._db = open_database(path, _SCHEMA, _VERSION)
            self._take_over()
        except sqlite3.OperationalError:  # a full disk, most likely; the queue may be whole
            raise
        except sqlite3.DatabaseError as error:
            raise RequestError(
                f"{shown(path)} is damaged ({error}); move it away, and the queue begins anew: no picture is lost"
            ) from error

    def _take_over(self) -> None:
        """What an earlier process left running."""
        self._db.execute("UPDATE jobs SET state = 'cancelled' WHERE state = 'running' AND ended IS NOT NULL")
        self._db.execute(
            "UPDATE jobs SET state = 'failed', ended = ?, reason = ? WHERE state = 'running' AND attempts >= ?",
            (time.time(), f"the program ended while it ran, {_ATTEMPTS} times; look at the log", _ATTEMPTS),
        )
        self._db.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")

    def close(self) -> None:
        with self._changed:
            self._db.close()

    # Clients

    def submit(self, kind: str, request: Any, client: str = "") -> Job:
        """Queue a job. client: any word that tells one from another, so that all have their turn.

        Raises QueueFullError, and RequestError for what is no JSON.
        """
        try:
            text = json.dumps(request, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RequestError(f"the request cannot be kept ({error}); give numbers, text and lists") from error
        with self._changed:
            if not self.room:
                raise QueueFullError(self._limit, self._retry_after(kind))
            name = uuid.uuid4().hex
            self._db.execute(
                "INSERT INTO jobs (id, kind, client, request, submitted) VALUES (?, ?, ?, ?, ?)",
                (name, kind, client, text, time.time()),
            )
            self._changed.notify_all()
            return self.get(name)

    def get(self, job: str) -> Job:
        """Raises RequestError if there is no such job."""
        with self._changed:
            row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
            if row is None:
                raise RequestError(f"there is no job {job[:40]!r}; ask for the list")
            return self._job(row)

    def find(
        self,
        *,
        kind: str | None = None,
        state: str | None = None,
        client: str | None = None,
        limit: int = 100,
        before: int = 0,
    ) -> list[Job]:
        """The newest first. before: only jobs of smaller numbers, 0 for all."""
        conditions = {"kind = ?": kind, "state = ?": state, "client = ?": client, "number < ?": before or None}
        asked = {text: value for text, value in conditions.items() if value is not None}
        where = f"WHERE {' AND '.join(asked)}" if asked else ""
        with self._changed:
            rows = self._db.execute(
                f"SELECT * FROM jobs {where} ORDER BY number DESC LIMIT ?",
                (*asked.values(), limit),
            ).fetchall()
            return [self._job(row) for row in rows]

    def active(self, *kinds: str) -> list[Job]:
        """Those of these kinds that run, then those that wait, the oldest first."""
        with self._changed:
            rows = self._db.execute(
                "SELECT * FROM jobs WHERE state IN ('running', 'queued') AND kind IN (SELECT value FROM json_each(?)) "
                "ORDER BY state DESC, number",
                (json.dumps(kinds),),
            ).fetchall()
            return [self._job(row) for row in rows]

    def current(self, *kinds: str) -> tuple[Job | None, int]:
        """The first of `active`, else the last job of these kinds that ended; and how many wait behind it."""
        with self._changed:
            if active := self.active(*kinds):
                return active[0], len(active) - 1
            last = [job for kind in kinds for job in self.find(kind=kind, limit=1)]
            return max(last, key=lambda job: job.number, default=None), 0

    def stoppable(self, user: str, *kinds: str) -> Job | None:
        """The first of `active` that the user may stop: behind another's job, the next of their own that waits."""
        return next((job for job in self.active(*kinds) if job.is_stoppable(user)), None)

    @property
    def room(self) -> int:
        """How many more jobs may wait."""
        return max(0, self._limit - self.count("queued"))

    def count(self, state: str) -> int:
        """How many jobs are in a state."""
        with self._changed:
            return self._db.execute("SELECT count(*) FROM jobs WHERE state = ?", (state,)).fetchone()[0]

    def kinds(self) -> list[str]:
        """Of all jobs."""
        with self._changed:
            return [row["kind"] for row in self._db.execute("SELECT DISTINCT kind FROM jobs ORDER BY kind")]

    def cancel(self, job: str, user: str = "") -> Job:
        """A queued job ends at once; of a running one the worker is told, and ends it after the present step.

        user: who asks, as `Job.is_stoppable`; RequestError where the job is another's.
        """
        with self._changed:
            found = self.get(job)
            if not found.is_stoppable(user):
                raise RequestError(f"job {found.number} is not {user}'s; ask who submitted it to stop it")
            if found.state == "queued":
                return self._end(job, "cancelled")
            if found.state == "running":
                self._db.execute("UPDATE jobs SET ended = ? WHERE id = ?", (time.time(), job))
            return found

    def watch(self, job: str, every: float = 15.0) -> Iterator[Job]:
        """The job now, then whenever it changed, until it has ended; unchanged again after `every` seconds.

        Who reads slowly sees fewer changes, never late ones.
        """
        while True:
            with self._changed:
                seen = self.get(job)
            yield seen
            if seen.state in ENDED:
                return
            with self._changed:
                self._changed.wait_for(lambda before=seen: self.get(job) != before, every)

    # The workers

    def refuse_others(self, kinds: Iterable[str]) -> None:
        """Queued jobs of other kinds, which a newer lorablend left, fail: nobody would ever take them."""
        with self._changed:
            self._db.execute(
                "UPDATE jobs SET state = 'failed', ended = ?, reason = ? "
                "WHERE state = 'queued' AND kind NOT IN (SELECT value FROM json_each(?))",
                (time.time(), "jobs of this kind are unknown here; use a newer lorablend", json.dumps(list(kinds))),
            )

    def take(self, kinds: Iterable[str], timeout: float | None = None) -> Job | None:
        """The next job of these kinds, which runs from now on; None if there was none for `timeout` seconds."""
        wanted = json.dumps(list(kinds))
        with self._changed:
            found = self._changed.wait_for(lambda: self._db.execute(_NEXT, (wanted,)).fetchone(), timeout)
            if found is None:
                return None
            self._db.execute(
                # Not before the last one: who had a turn before the clock was set back would wait until it caught up.
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, "
                "started = max(?, (SELECT coalesce(max(started), 0) FROM jobs)) WHERE number = ?",
                (time.time(), found["number"]),
            )
            self._changed.notify_all()
            return self._job(self._db.execute("SELECT * FROM jobs WHERE number = ?", (found["number"],)).fetchone())

    def report(self, job: str, progress: Progress) -> bool:
        """How far a running job is. False: it is to end now."""
        with self._changed:
            self._progress[job] = progress
            self._changed.notify_all()
            row = self._db.execute("SELECT ended IS NULL FROM jobs WHERE id = ?", (job,)).fetchone()
            return row is not None and bool(row[0])

    def finish(self, job: str, result: Mapping[str, Any]) -> Job:
        return self._end(job, "done", result=dict(result))

    def fail(self, job: str, reason: str) -> Job:
        return self._end(job, "failed", reason=reason)

    def put_back(self, job: str) -> Job:
        """The worker ends in good order, and the job was not at fault: it is queued again as if it had never begun.

        One that was cancelled meanwhile is not.
        """
        with self._changed:
            self._db.execute(
                "UPDATE jobs SET state = CASE WHEN ended IS NULL THEN 'queued' ELSE 'cancelled' END, "
                "attempts = attempts - 1 WHERE id = ?",
                (job,),
            )
            self._progress.pop(job, None)
            self._changed.notify_all()
            return self.get(job)

    def stop(self, job: str) -> Job:
        """The running job was cancelled, and has ended."""
        return self._end(job, "cancelled")

    def _end(self, job: str, state: str, *, reason: str = "", result: Any = None) -> Job:
        with self._changed:
            self._db.execute(
                "UPDATE jobs SET state = ?, ended = max(?, coalesce(started, 0)), reason = ?, result = ? WHERE id = ?",
                (state, time.time(), reason, json.dumps(result, ensure_ascii=False), job),
            )
            self._progress.pop(job, None)
            self._changed.notify_all()
            return self.get(job)

    def _retry_after(self, kind: str) -> int:
        """Seconds that a job of this kind took lately, at least one."""
        times = self._db.execute(
            "SELECT avg(ended - started) FROM "
            "(SELECT * FROM jobs WHERE state = 'done' AND kind = ? ORDER BY number DESC LIMIT 10)",
            (kind,),
        ).fetchone()[0]
        return max(1, round(times or 1))

    def _job(self, row: sqlite3.Row) -> Job:
        values: dict[str, Any] = dict(row)
        values |= {"request": json.loads(values["request"]), "result": json.loads(values["result"])}
        if values["state"] not in ENDED:  # cancelled, but the worker has not seen it yet
            values["ended"] = None
        job = Job(**values)
        return replace(job, progress=self._progress.get(job.id))

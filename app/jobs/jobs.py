"""Jobs: requests of clients, kept in SQLite until they are done, and handed to a worker one at a time.

A job is queued, then running, then done, failed or cancelled. The database holds everything that must outlive the
process; the progress of a running job and its preview are in memory. After a kill the queued jobs are still queued. A
job that was running is queued again, at most twice, unless it was cancelled.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import FaultError, ForbiddenError, NotFoundError, QueueFullError, RequestError
from lorablend.adapters.wording import shown
from lorablend.app.database import open_database

__all__ = ["ENDED", "GETTING_READY", "HISTORY", "STATES", "Job", "JobProgress", "Jobs"]

STATES = ("queued", "running", "done", "failed", "cancelled")
ENDED = ("done", "failed", "cancelled")
_CLIENTS = 4  # so many of them can fill the queue of a kind
HISTORY = 100_000
"""How many jobs that have ended are kept, unless told otherwise: `bench/growth.py` measures that many."""
GETTING_READY = "getting ready"  # the stage before the first step of a picture; steps are then counted in pictures
_ATTEMPTS = 3  # a job that takes the process down with it must not do so forever
_VERSION = 3
# A running job that was cancelled has `ended` set already: if its worker is killed before it stops, it stays cancelled.
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
    result TEXT NOT NULL DEFAULT 'null',
    error TEXT NOT NULL DEFAULT ''
);
CREATE INDEX by_state ON jobs (state, number);
"""
# Without them, what is asked with each job and on every look at the page takes longer with every job that has ended.
_INDEXES = """
CREATE INDEX by_kind ON jobs (kind, state, number);
CREATE INDEX by_client ON jobs (client, number);
CREATE INDEX by_turn ON jobs (client, started);
CREATE INDEX by_start ON jobs (started);
CREATE INDEX by_end ON jobs (ended);
CREATE INDEX waiting ON jobs (client, kind, number) WHERE state = 'queued';
"""
_UPGRADES = ("ALTER TABLE jobs ADD COLUMN error TEXT NOT NULL DEFAULT '';", _INDEXES)
# Of the waiting clients, the one whose last turn was longest ago; of its jobs, the oldest.
_NEXT = """
SELECT number FROM (
    SELECT client, min(number) AS number FROM jobs INDEXED BY waiting
    WHERE state = 'queued' AND kind IN (SELECT value FROM json_each(?)) GROUP BY client
) AS first
ORDER BY (SELECT coalesce(max(started), 0) FROM jobs WHERE jobs.client = first.client), number LIMIT 1
"""
_ACTIVE = "state IN ('running', 'queued') AND kind IN (SELECT value FROM json_each(?))"
_FORGET = """
DELETE FROM jobs WHERE number IN (
    SELECT number FROM jobs WHERE ended IS NOT NULL AND state NOT IN ('queued', 'running')
    ORDER BY ended, number LIMIT ?
)
"""


@dataclass(frozen=True, kw_only=True)
class JobProgress:
    """The progress of a running job.

    Attributes:
        step: Steps done so far.
        steps: Steps of the whole job.
        eta: Seconds to the end, if known.
        preview: The picture so far, as a small PNG or JPEG.
        text: The present stage, for a person.
    """

    step: int
    steps: int
    eta: float | None = None
    preview: bytes | None = None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A snapshot of one job. Times are seconds since 1970.

    Attributes:
        number: Counts all jobs.
        request: What was ordered, as JSON; `lorablend.app.orders` has its types.
        reason: Why the job failed, in one line.
        result: What came of it, as JSON; None until the job is done.
        error: The class in `lorablend.adapters.errors` that the job failed with; "" for one that failed before
            version 2 of the database.
        stopping: It was cancelled, and ends after its present step.
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
    error: str = ""
    progress: JobProgress | None = None
    stopping: bool = False

    def is_stoppable(self, user: str) -> bool:
        """Whether that user may stop the job; "", who has the token or did not log in, may stop all jobs."""
        return user in ("", self.client)


class Jobs:
    """The jobs in a database, for any number of threads of one process.

    Jobs that an earlier process left running are queued again, or fail if that was their third attempt.

    Args:
        path: The database; it is made if it does not exist.
        limit: How many jobs of a kind may wait for one client; for all together, four times as many.
        history: How many jobs that have ended are kept; those that ended first are forgotten.

    Raises:
        RequestError: The database is damaged.
    """

    def __init__(self, path: Path, limit: int = 64, history: int = HISTORY) -> None:
        self._limit, self._history = limit, history
        self._changed = threading.Condition(threading.RLock())
        self._progress: dict[str, JobProgress] = {}
        self.on_end: Callable[[Job], object] = lambda job: None
        """Called with each job that ends, while the queue is locked."""
        try:
            self._db = open_database(path, _SCHEMA + _INDEXES, _VERSION, _UPGRADES)
            self._take_over()
            self._ended = sum(map(self.count, ENDED))  # kept up to date from here: counting again takes milliseconds
            self._forget()
        except sqlite3.OperationalError:  # a full disk, most likely; the queue may be whole
            raise
        except sqlite3.DatabaseError as error:
            raise RequestError(
                f"{shown(path)} is damaged ({error}); move it away to start with an empty queue: no picture is lost"
            ) from error

    def _take_over(self) -> None:
        """Deal with the jobs that an earlier process left running."""
        self._db.execute("UPDATE jobs SET state = 'cancelled' WHERE state = 'running' AND ended IS NOT NULL")
        self._db.execute(
            "UPDATE jobs SET state = 'failed', ended = ?, reason = ?, error = ? "
            "WHERE state = 'running' AND attempts >= ?",
            (
                time.time(),
                f"the program ended while this job ran, {_ATTEMPTS} times; look at the log",
                FaultError.__name__,
                _ATTEMPTS,
            ),
        )
        self._db.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")

    def _forget(self) -> None:
        """Delete the jobs that ended first, as many as there are too many."""
        if self._ended > self._history:
            self._ended -= self._db.execute(_FORGET, (self._ended - self._history,)).rowcount

    def close(self) -> None:
        with self._changed:
            self._db.close()

    # Clients

    def submit(self, kind: str, request: Any, client: str = "") -> Job:
        """Queue a job.

        Args:
            kind: What selects the runner.
            request: The order, as JSON.
            client: Any word that tells clients apart, so that each of them gets its turn.

        Raises:
            QueueFullError: As many jobs are waiting as may wait.
            RequestError: The request is not JSON.
        """
        try:
            text = json.dumps(request, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RequestError(f"the request cannot be kept ({error}); give numbers, text and lists") from error
        with self._changed:
            if not self.room(kind, client):
                seconds = self._retry_after(kind)
                own = self._waiting(kind, client)
                whose = f"{own} of your" if own >= self._limit else f"{self._waiting(kind)}"
                raise QueueFullError(
                    f"{whose} {kind} jobs are waiting, which is the limit; try again in {seconds} s", seconds
                )
            name = uuid.uuid4().hex
            self._db.execute(
                "INSERT INTO jobs (id, kind, client, request, submitted) VALUES (?, ?, ?, ?, ?)",
                (name, kind, client, text, time.time()),
            )
            self._changed.notify_all()
            return self.get(name)

    def get(self, job: str) -> Job:
        """The job with that id. Raises NotFoundError if it does not exist."""
        with self._changed:
            row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
            if row is None:
                raise NotFoundError(f"there is no job {job[:40]!r}; /api/jobs lists all jobs")
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
        """The newest jobs first. before: only jobs with smaller numbers, 0 for all."""
        conditions = {"kind = ?": kind, "state = ?": state, "client = ?": client, "number < ?": before or None}
        given = {text: value for text, value in conditions.items() if value is not None}
        where = f"WHERE {' AND '.join(given)}" if given else ""
        with self._changed:
            rows = self._db.execute(
                f"SELECT * FROM jobs {where} ORDER BY number DESC LIMIT ?",
                (*given.values(), limit),
            ).fetchall()
            return [self._job(row) for row in rows]

    def mentioning(self, *words: str) -> list[Job]:
        """The jobs with any of the words in the JSON of their requests."""
        where = " OR ".join(["instr(request, ?)"] * len(words))
        with self._changed:
            return [self._job(row) for row in self._db.execute(f"SELECT * FROM jobs WHERE {where}", words)]

    def active(self, *kinds: str) -> list[Job]:
        """The running jobs of these kinds, then the waiting ones, the oldest first."""
        with self._changed:
            rows = self._db.execute(
                f"SELECT * FROM jobs WHERE {_ACTIVE} ORDER BY state DESC, number",
                (json.dumps(kinds),),
            ).fetchall()
            return [self._job(row) for row in rows]

    def current(self, *kinds: str) -> tuple[Job | None, int]:
        """The first of `active`, or else the last job of these kinds that ended; and how many jobs wait behind it."""
        with self._changed:
            if first := self._first_active(kinds):
                query = f"SELECT count(*) FROM jobs WHERE {_ACTIVE}"
                return first, self._db.execute(query, (json.dumps(kinds),)).fetchone()[0] - 1
            last = [job for kind in kinds for job in self.find(kind=kind, limit=1)]
            return max(last, key=lambda job: job.number, default=None), 0

    def stoppable(self, user: str, *kinds: str) -> Job | None:
        """The first of `active` that the user may stop: while another user's job runs, their own next waiting job."""
        return self._first_active(kinds, user or None)  # as `Job.is_stoppable`

    def _first_active(self, kinds: tuple[str, ...], client: str | None = None) -> Job | None:
        """The first of `active`, of one client if there is one given."""
        own = f"{_ACTIVE} AND client = coalesce(?, client)"
        query = f"SELECT * FROM jobs WHERE {own} ORDER BY state DESC, number LIMIT 1"
        with self._changed:
            row = self._db.execute(query, (json.dumps(kinds), client)).fetchone()
            return self._job(row) if row else None

    def room(self, kind: str, client: str = "") -> int:
        """How many more jobs of a kind may wait for a client. Other kinds do not count: their workers are others."""
        with self._changed:
            own, all_ = self._waiting(kind, client), self._waiting(kind)
        return max(0, min(self._limit - own, _CLIENTS * self._limit - all_))

    def _waiting(self, kind: str, client: str | None = None) -> int:
        """How many jobs of a kind wait: a client's, or all."""
        query = "SELECT count(*) FROM jobs WHERE state = 'queued' AND kind = ? AND client = coalesce(?, client)"
        return self._db.execute(query, (kind, client)).fetchone()[0]

    def count(self, state: str) -> int:
        """How many jobs are in a state."""
        with self._changed:
            return self._db.execute("SELECT count(*) FROM jobs WHERE state = ?", (state,)).fetchone()[0]

    def kinds(self) -> list[str]:
        """The kinds of all jobs in the database."""
        with self._changed:
            return [row["kind"] for row in self._db.execute("SELECT DISTINCT kind FROM jobs ORDER BY kind")]

    def cancel(self, job: str, user: str = "") -> Job:
        """Cancel a job: a queued one ends at once, a running one after its present step.

        Args:
            job: The job's id. Cancelling a job that has ended changes nothing.
            user: Who cancels it, as in `Job.is_stoppable`.

        Raises:
            NotFoundError: There is no such job.
            ForbiddenError: The job is another user's.
        """
        with self._changed:
            before = self.get(job)
            if not before.is_stoppable(user):
                raise ForbiddenError(f"job {before.number} is not {user}'s; ask who submitted it to stop it")
            if before.state == "queued":
                return self._end(job, "cancelled")
            if before.state == "running":
                self._db.execute("UPDATE jobs SET ended = ? WHERE id = ?", (time.time(), job))
                self._changed.notify_all()
            return self.get(job)

    def watch(self, job: str, every: float = 15.0) -> Iterator[Job]:
        """Yield the job now and after every change, until it has ended; after `every` seconds, also without a change.

        A slow reader sees fewer changes, never stale ones.
        """
        while True:
            with self._changed:
                now = self.get(job)
            yield now
            if now.state in ENDED:
                return
            with self._changed:
                self._changed.wait_for(lambda before=now: self.get(job) != before, every)

    # The workers

    def refuse_others(self, kinds: Iterable[str]) -> None:
        """Fail the queued jobs of other kinds, which a newer lorablend left: no worker would ever take them."""
        with self._changed:
            self._db.execute(
                "UPDATE jobs SET state = 'failed', ended = ?, reason = ? "
                "WHERE state = 'queued' AND kind NOT IN (SELECT value FROM json_each(?))",
                (time.time(), "jobs of this kind are unknown here; use a newer lorablend", json.dumps(list(kinds))),
            )

    def take(self, kinds: Iterable[str], timeout: float | None = None) -> Job | None:
        """Start the next job of these kinds; None if there was none for `timeout` seconds."""
        wanted = json.dumps(list(kinds))
        with self._changed:
            row = self._changed.wait_for(lambda: self._db.execute(_NEXT, (wanted,)).fetchone(), timeout)
            if row is None:
                return None
            self._db.execute(
                # Never before the last start: after the clock is set back, a client would wait until it caught up.
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, "
                "started = max(?, (SELECT coalesce(max(started), 0) FROM jobs)) WHERE number = ?",
                (time.time(), row["number"]),
            )
            self._changed.notify_all()
            return self._job(self._db.execute("SELECT * FROM jobs WHERE number = ?", (row["number"],)).fetchone())

    def report(self, job: str, progress: JobProgress) -> bool:
        """Keep the progress of a running job. Returns False if the job should end now."""
        with self._changed:
            self._progress[job] = progress
            self._changed.notify_all()
            row = self._db.execute("SELECT ended IS NULL FROM jobs WHERE id = ?", (job,)).fetchone()
            return row is not None and bool(row[0])

    def finish(self, job: str, result: Mapping[str, Any]) -> Job:
        """End a job that is done."""
        return self._end(job, "done", result=dict(result))

    def fail(self, job: str, reason: str, error: str = FaultError.__name__) -> Job:
        """End a job that failed, with a reason for people and the class of its error in `adapters.errors`."""
        return self._end(job, "failed", reason=reason, error=error)

    def put_back(self, job: str) -> Job:
        """Queue a running job again as if it had never begun, because its worker shuts down.

        A job that was cancelled meanwhile ends as cancelled.
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
        """End a running job that was cancelled."""
        return self._end(job, "cancelled")

    def _end(self, job: str, state: str, *, reason: str = "", error: str = "", result: Any = None) -> Job:
        with self._changed:
            self._db.execute(
                "UPDATE jobs SET state = ?, ended = max(?, coalesce(started, 0)), reason = ?, error = ?, result = ? "
                "WHERE id = ?",
                (state, time.time(), reason, error, json.dumps(result, ensure_ascii=False), job),
            )
            self._progress.pop(job, None)
            self._changed.notify_all()
            ended = self.get(job)
            self._ended += 1
            self._forget()
            self.on_end(ended)
            return ended

    def _retry_after(self, kind: str) -> int:
        """The mean seconds that recent jobs of this kind took, at least one."""
        times = self._db.execute(
            "SELECT avg(ended - started) FROM "
            "(SELECT * FROM jobs WHERE state = 'done' AND kind = ? ORDER BY number DESC LIMIT 10)",
            (kind,),
        ).fetchone()[0]
        return max(1, round(times or 1))

    def _job(self, row: sqlite3.Row) -> Job:
        values: dict[str, Any] = dict(row)
        values |= {"request": json.loads(values["request"]), "result": json.loads(values["result"])}
        if values["state"] not in ENDED:  # cancelled, but the worker does not know it yet
            values |= {"stopping": values["ended"] is not None, "ended": None}
        job = Job(**values)
        return replace(job, progress=self._progress.get(job.id))

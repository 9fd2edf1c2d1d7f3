"""A worker: a thread that takes one job after another, of some kinds."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import Cancelled, FaultError, LorablendError
from lorablend.app.files import without_folders
from lorablend.app.jobs.jobs import Job, JobProgress, Jobs

__all__ = ["Report", "Runner", "Worker"]

_LOG = logging.getLogger(__name__)

Report = Callable[[JobProgress], bool]
"""Takes the progress of a job. False means that the job should end, by raising Cancelled."""
Runner = Callable[[Job, Report], Mapping[str, Any]]
"""Does a job and returns its result, as JSON."""

_PAUSE = 2.0  # seconds between two attempts to write to the queue


class Worker:
    """Takes jobs of the kinds in `runners` until it is stopped.

    Args:
        jobs: The queue.
        runners: What does each kind of job.
        hide: Folders that no reason of a failure may name, because clients read it.

    Attributes:
        trouble: Why the queue cannot be written to; "" if it can.
    """

    def __init__(self, jobs: Jobs, runners: Mapping[str, Runner], hide: tuple[Path, ...] = ()) -> None:
        self._jobs, self._runners, self._hide = jobs, runners, hide
        self.trouble = ""
        self._ending = threading.Event()
        self._handing = threading.Lock()
        self._job: Job | None = None  # what it does at present, as long as it may decide how that ends
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the present step; the running job is queued again."""
        self._ending.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread to end, at most `timeout` seconds; returns whether it has.

        If it has not, its job is queued again, and whatever comes of it is ignored.
        """
        if self.alive:
            self._thread.join(timeout)
        with self._handing, suppress(sqlite3.Error):  # where the disk is full, the next start queues it again
            job, self._job = self._job, None
            if job is not None:
                self._jobs.put_back(job.id)
                _LOG.warning("job %d %s is broken off, and queued again", job.number, job.kind)
        return not self.alive

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _work(self) -> None:
        while not self._ending.is_set():
            job = self._insist(self._take)
            if job is not None:
                self._do(job)

    def _take(self) -> Job | None:
        with self._handing:
            self._job = self._jobs.take(self._runners, timeout=0.5)
            return self._job

    def _hand(self, end: Callable[[], Job]) -> Job | None:
        """End the job, unless it was taken away by `join`."""
        with self._handing:
            if self._job is None:
                return None
            ended, self._job = end(), None
            return ended

    def _insist(self, act: Callable[[], Job | None]) -> Job | None:
        """Call `act` until the queue can be written to; None if the worker is stopped first.

        So a full disk neither ends the worker nor leaves a job that runs forever.
        """
        while True:
            try:
                done = act()
                self.trouble = ""
                return done
            except sqlite3.Error as error:
                self.trouble = f"the queue cannot be written to ({error})"
                _LOG.error("the queue cannot be written to (%s); make room on the disk, this is tried again", error)
                if self._ending.wait(_PAUSE):
                    return None

    def _do(self, job: Job) -> None:
        started = time.perf_counter()

        def report(progress: JobProgress) -> bool:
            return not self._ending.is_set() and self._jobs.report(job.id, progress)

        try:
            result = self._runners[job.kind](job, report)
        except Cancelled:
            end = partial(self._jobs.put_back if self._ending.is_set() else self._jobs.stop, job.id)
        except LorablendError as error:
            if isinstance(error, FaultError):
                _LOG.error("job %d: %s", job.number, error)
            reason = without_folders(error.message, self._hide)
            end = partial(self._jobs.fail, job.id, reason, type(error).__name__)
        except Exception as error:
            _LOG.exception("job %d", job.number)
            text = f"a bug in lorablend ({type(error).__name__}); the server's log says more"
            if isinstance(error, OSError) and error.strerror:  # a full disk, most likely
                text = f"a file could not be read or written: {error.strerror}; the server's log says which"
            end = partial(self._jobs.fail, job.id, text)
        else:
            end = partial(self._jobs.finish, job.id, result)
        ended = self._insist(lambda: self._hand(end))
        if ended is not None:
            seconds = time.perf_counter() - started
            reason = f": {ended.reason}" if ended.reason else ""
            _LOG.info("job %d %s %s in %.2f s%s", job.number, job.kind, ended.state, seconds, reason)

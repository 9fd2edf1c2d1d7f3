"""A worker: what it says of jobs that go wrong, and that a full disk does not end it."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lorablend.app.files import without_folders
from lorablend.app.jobs.jobs import Job, JobProgress, Jobs
from lorablend.app.jobs.worker import Report, Worker
from tests.app.rest.rest_server import FAST, running


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path / "jobs.sqlite")
    yield jobs
    jobs.close()


def ended(jobs: Jobs, job: Job) -> Job:
    return list(jobs.watch(job.id))[-1]


def test_a_full_disk_is_the_reason(jobs: Jobs) -> None:
    def save(job: Job, report: Report) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere/a.png")

    worker = Worker(jobs, {"draw": save})
    worker.start()
    failed = ended(jobs, jobs.submit("draw", 1))
    worker.stop()
    worker.join()
    reason = "a file could not be read or written: No space left on device; the server's log says which"
    assert (failed.state, failed.reason) == ("failed", reason)


def test_a_picture_that_cannot_be_saved_is_not_the_clients_fault(sdxl_model: Path, tmp_path: Path) -> None:
    with running(tmp_path, sdxl_model) as server:
        server.service.gallery.day().write_text("a file in the folder's place")
        answer = server.http.post("/sdapi/v1/txt2img", json={"prompt": "a fox", **FAST})
    assert answer.status_code == 500
    assert "a file could not be read or written: File exists; the server's log says which" in answer.text


def test_a_queue_that_cannot_be_written_ends_no_worker(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    """The job that was done then is done, and the next one is taken."""
    said = threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "cannot be written to" in record.getMessage():
                said.set()

    def draw(job: Job, report: Report) -> dict[str, Any]:
        if job.request == 1:
            jobs._db.execute("PRAGMA query_only = 1")  # pyright: ignore[reportPrivateUsage]
        return {}

    log = logging.getLogger("lorablend.app.jobs.worker")
    handler = Heard()
    log.addHandler(handler)
    worker = Worker(jobs, {"draw": draw})
    both = jobs.submit("draw", 1), jobs.submit("draw", 2)
    worker.start()
    assert said.wait(20)
    log.removeHandler(handler)
    assert jobs.get(both[0].id).state == "running"
    jobs._db.execute("PRAGMA query_only = 0")  # pyright: ignore[reportPrivateUsage]
    assert [ended(jobs, job).state for job in both] == ["done", "done"]
    worker.stop()
    worker.join()
    assert "make room on the disk" in caplog.text


def test_a_worker_that_cannot_end_is_left(jobs: Jobs) -> None:
    """Its job waits again as if it had never begun, and what comes of it later is ignored."""
    inside, go_on, told = threading.Event(), threading.Event(), []

    def draw(job: Job, report: Report) -> dict[str, Any]:
        inside.set()
        go_on.wait(20)
        told.append(report(JobProgress(step=1, steps=2)))
        return {"late": True}

    worker = Worker(jobs, {"draw": draw})
    job = jobs.submit("draw", 1)
    worker.start()
    assert inside.wait(20)
    worker.stop()
    assert not worker.join(timeout=0.1)
    assert (jobs.get(job.id).state, jobs.get(job.id).attempts) == ("queued", 0)
    go_on.set()
    assert worker.join()
    assert told == [False]
    assert (jobs.get(job.id).state, jobs.get(job.id).result) == ("queued", None)


def test_messages_without_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"{tmp_path}/models/a.xml is damaged. Take 1.5 of it, or {tmp_path}"
    for folder in (Path("."), tmp_path, tmp_path / "."):
        assert without_folders(text, (folder,)) == f"models/a.xml is damaged. Take 1.5 of it, or {tmp_path.name}"
    assert without_folders(text, (Path("/"),)) == text

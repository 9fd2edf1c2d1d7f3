"""The real server on a port of this machine, with the real service behind it, for the tests of its faces."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from lorablend.app.jobs.jobs import Job
from lorablend.app.server import create_app, listen
from lorablend.app.service import Service

__all__ = ["FAST", "Running", "running", "serving"]

FAST = {"steps": 2, "width": 64, "height": 64}


@dataclass(frozen=True)
class Running:
    """A server that runs. url: without a slash at the end."""

    url: str
    service: Service
    http: httpx.Client

    def long_job(self, **fields: Any) -> Job:
        """A job that runs for as long as a test wants, when it has begun to draw; cancel it."""
        asked = {"prompt": "a fox", "width": 64, "height": 64, "steps": 400, "count": 20, **fields}
        job = self.http.post("/api/jobs", json=asked)
        assert job.status_code == 202, job.text
        return self.until_drawing(job.json()["id"])

    def refuses(self, path: str) -> None:
        """Nothing is there, and nothing of what lies beside it is told. Sent as written: httpx would take dots out."""
        answer = self.http.get(httpx.URL(self.url).copy_with(raw_path=path.encode()))
        assert answer.status_code == 404
        assert b"root:" not in answer.content
        assert b"SQLite" not in answer.content

    def until_drawing(self, job: str) -> Job:
        for seen in self.service.jobs.watch(job, 60):
            if seen.progress and seen.progress.preview:
                return seen
        raise AssertionError(f"job {job} ended before it drew")


@contextmanager
def running(
    data: Path, model: Path, lora_dir: Path | None = None, *, limit: int = 64, **options: Any
) -> Iterator[Running]:
    """The whole of it. options: of `create_app`."""
    service = Service(data, {"small": model}, lora_dir, limit=limit)
    service.start()
    try:
        with serving(service, **options) as url, httpx.Client(base_url=url, timeout=120) as http:
            yield Running(url, service, http)
    finally:
        service.close()


@contextmanager
def serving(service: Service, **options: Any) -> Iterator[str]:
    """The app over a service; its address."""
    socket = listen("127.0.0.1", 0)
    config = uvicorn.Config(
        create_app(service, **options), log_config=None, access_log=False, timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()  # connections wait in the socket until it listens
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        socket.close()

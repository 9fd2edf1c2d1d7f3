"""The real server on a port of this machine, with the real service behind it, for the tests of its faces."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.routing import Match

from lorablend.app.jobs.jobs import Job
from lorablend.app.server import create_app, listen, server_config
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
        app = create_app(service, **options)
        hooks = {"response": [lambda answer: check_reply(app, answer)]}
        with _serving(app) as url, httpx.Client(base_url=url, timeout=120, event_hooks=hooks) as http:
            yield Running(url, service, http)
    finally:
        service.close()


def check_reply(app: FastAPI, answer: httpx.Response) -> None:
    """A reply has the keys and values that its schema declares: none more, none less."""
    if answer.request.method == "HEAD" or answer.headers.get("content-type") != "application/json":
        return
    body = json.loads(answer.read())
    path = answer.request.url.path
    scope = {"type": "http", "method": answer.request.method, "path": path, "root_path": "", "headers": []}
    route = next((route for route in app.routes if route.matches(scope)[0] is Match.FULL), None)
    if not isinstance(route, APIRoute) or not route.include_in_schema:
        return
    if answer.is_success:
        model = route.response_model
    else:
        declared = route.responses.get(answer.status_code)
        assert declared, f"{path} does not declare status {answer.status_code}"
        model = declared["model"]
    kind = TypeAdapter(model)
    value = kind.validate_python(body)
    assert kind.dump_python(value, mode="json", exclude_unset=True) == body, path


def serving(service: Service, **options: Any) -> AbstractContextManager[str]:
    """The app over a service, on a port of this machine; gives its address. options: of `create_app`."""
    return _serving(create_app(service, **options))


@contextmanager
def _serving(app: FastAPI) -> Iterator[str]:
    socket = listen("127.0.0.1", 0)
    config = server_config(app)
    config.timeout_graceful_shutdown = 2
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()  # connections wait in the socket until it listens
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        socket.close()

"""What all REST faces share: the service behind a request, whose request it is, and waiting for a job.

Waiting holds one of a limited number of threads for a second at most, never the event loop.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request
from fastapi.responses import Response

from lorablend.app.jobs.jobs import ENDED, Job
from lorablend.app.orders.draw import Draw
from lorablend.app.service import Service

__all__ = [
    "KEEP_ALIVE",
    "MEDIA_TYPES",
    "STILL_HERE",
    "Client",
    "ClientGoneError",
    "JobFailedError",
    "Served",
    "User",
    "changes",
    "finished",
    "in_thread",
    "keep_upload",
    "message",
    "pictures",
    "reply",
    "submit",
    "to_base64",
]

MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
KEEP_ALIVE = 15.0  # seconds after which a stream without news says that it lives
STILL_HERE = ": still here\n\n"
_LOOK = 1.0  # seconds after which a waiting request looks whether its client is still there


class ClientGoneError(Exception):
    """The client closed the connection while its job was drawn; the job is cancelled."""


class JobFailedError(Exception):
    """A job ended without pictures. job: as it ended."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.reason or "the job was cancelled")
        self.job = job


def _service(request: Request) -> Service:
    return request.app.state.service


def _user(request: Request) -> str:
    """The name that the user logged in by, "" for who has the token, and where nobody logs in."""
    return request.scope.get("lorablend.user") or ""


def _client(request: Request) -> str:
    """The user's name where users log in, else the client's address."""
    return _user(request) or (request.client.host if request.client else "")


Served = Annotated[Service, Depends(_service)]
User = Annotated[str, Depends(_user)]
Client = Annotated[str, Depends(_client)]


async def in_thread(function: Any, *arguments: Any) -> Any:
    """Call what reads files or the database."""
    return await to_thread.run_sync(function, *arguments)


async def submit(service: Service, draw: Draw, client: str) -> Job:
    """As `Service.draw`."""
    return await in_thread(service.draw, draw, client)


async def changes(request: Request, service: Service, job: str) -> AsyncIterator[Job]:
    """The job now and whenever it changed, until it has ended; unchanged again after a second."""
    limiter: CapacityLimiter = request.app.state.waiting
    seen = service.jobs.watch(job, _LOOK)
    while True:
        found = await to_thread.run_sync(next, seen, None, abandon_on_cancel=True, limiter=limiter)
        if found is None:
            return
        yield found


async def finished(request: Request, service: Service, job: Job) -> Job:
    """The job when it is done.

    Raises JobFailedError where it failed or was cancelled, and ClientGoneError when the client went away; whatever ends
    the wait before the job's end, cancels it.
    """
    try:
        async for seen in changes(request, service, job.id):
            job = seen
            if job.state not in ENDED and await request.is_disconnected():
                raise ClientGoneError
    finally:
        if job.state not in ENDED:
            service.jobs.cancel(job.id)
    if job.state != "done":
        raise JobFailedError(job)
    return job


async def pictures(service: Service, job: Job) -> list[bytes]:
    """The files of a job that is done, as they are."""

    def read() -> list[bytes]:
        return [service.gallery.path(picture["file"]).read_bytes() for picture in job.result["pictures"]]

    return await in_thread(read)


async def keep_upload(service: Service, content: bytes) -> str:
    """As `Uploads.keep`."""
    return await in_thread(service.uploads.keep, content)


def to_base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def reply(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON in ASCII, so that no broken character in what a client sent can break the answer."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers, media_type="application/json")


def message(name: str, content: Any) -> str:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(content, allow_nan=False)}\n\n"

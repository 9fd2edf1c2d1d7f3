"""What all REST faces share: the service behind a request, whose request it is, waiting for a job, and replies.

Waiting occupies one of a limited number of threads for at most a second at a time, never the event loop.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request
from fastapi.responses import Response
from fastapi.sse import format_sse_event

from lorablend.app.jobs.jobs import ENDED, Job
from lorablend.app.orders.draw import Draw
from lorablend.app.service import Service

__all__ = [
    "FILE_HEADERS",
    "KEEP_ALIVE",
    "MEDIA_TYPES",
    "STILL_HERE",
    "Client",
    "ClientGoneError",
    "JobFailedError",
    "Served",
    "User",
    "changes",
    "content",
    "event",
    "finished",
    "form_body",
    "in_thread",
    "keep_upload",
    "pictures",
    "reply",
    "submit",
    "to_base64",
]

MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
FILE_HEADERS = {"Cache-Control": "private, max-age=3600", "Content-Security-Policy": "default-src 'none'; sandbox"}
KEEP_ALIVE = 15.0  # seconds of silence in a stream, after which a comment shows that it is alive
STILL_HERE = format_sse_event(comment="still here")
_BINARY = {"type": "string", "format": "binary"}
_LOOK = 1.0  # seconds between two checks whether the client of a waiting request is still connected


class ClientGoneError(Exception):
    """The client closed the connection while its job was waiting or drawn; the job is cancelled."""


class JobFailedError(Exception):
    """A job ended without pictures.

    Attributes:
        job: The job as it ended.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job.reason or "the job was cancelled")
        self.job = job


def _service(request: Request) -> Service:
    return request.app.state.service


def _user(request: Request) -> str:
    """The name that the user logged in by; "" for a client with the token, and on servers without a login."""
    return request.scope.get("lorablend.user") or ""


def _client(request: Request) -> str:
    """The user's name where users log in, otherwise the client's address."""
    return _user(request) or (request.client.host if request.client else "")


Served = Annotated[Service, Depends(_service)]
User = Annotated[str, Depends(_user)]
Client = Annotated[str, Depends(_client)]


async def in_thread(function: Any, *arguments: Any) -> Any:
    """Call a function that reads files or the database."""
    return await to_thread.run_sync(function, *arguments)


async def submit(service: Service, draw: Draw, client: str) -> Job:
    """As `Service.draw`."""
    return await in_thread(service.draw, draw, client)


async def changes(request: Request, service: Service, job: str) -> AsyncIterator[Job]:
    """Yield the job now and after every change until it has ended; after a second, also without a change."""
    limiter: CapacityLimiter = request.app.state.waiting
    watched = service.jobs.watch(job, _LOOK)
    while True:
        now = await to_thread.run_sync(next, watched, None, abandon_on_cancel=True, limiter=limiter)
        if now is None:
            return
        yield now


async def finished(request: Request, service: Service, job: Job) -> Job:
    """Wait until a job is done. Whatever ends the wait earlier cancels the job.

    Raises:
        JobFailedError: The job failed or was cancelled.
        ClientGoneError: The client closed the connection.
    """
    try:
        async for now in changes(request, service, job.id):
            job = now
            if job.state not in ENDED and await request.is_disconnected():
                raise ClientGoneError
    finally:
        if job.state not in ENDED:
            service.jobs.cancel(job.id)
    if job.state != "done":
        raise JobFailedError(job)
    return job


async def pictures(service: Service, job: Job) -> list[bytes]:
    """The files of a job that is done, unchanged."""

    def read() -> list[bytes]:
        return [service.gallery.path(picture["file"]).read_bytes() for picture in job.result["pictures"]]

    return await in_thread(read)


async def keep_upload(service: Service, content: bytes) -> str:
    """As `Uploads.keep`."""
    return await in_thread(service.uploads.keep, content)


def to_base64(content: bytes) -> str:
    """Bytes as base64 text."""
    return base64.b64encode(content).decode("ascii")


def reply(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A reply in JSON, in ASCII, so that a broken character in what a client sent cannot break it."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers, media_type="application/json")


def event(name: str, content: Any, id_: str | None = None) -> bytes:
    """One server-sent event."""
    return format_sse_event(event=name, data_str=json.dumps(content, allow_nan=False), id=id_)


def content(*media_types: str, status: int = 200, description: str = "The file") -> dict[int | str, dict[str, Any]]:
    """A reply that is not JSON, for openapi.json."""
    text = {"type": "string"}
    kinds = {name: {"schema": text if name.startswith("text/") else _BINARY} for name in media_types}
    return {status: {"description": description, "content": kinds}}


def form_body(required: list[str], **fields: Any) -> dict[str, Any]:
    """The body of a multipart form, for openapi.json. fields: schemas; "file" and "files" stand for uploads."""
    shorthands = {"file": _BINARY, "files": {"type": "array", "items": _BINARY}, "text": {"type": "string"}}
    properties = {name: shorthands[kind] for name, kind in fields.items()}
    schema = {"type": "object", "required": required, "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}

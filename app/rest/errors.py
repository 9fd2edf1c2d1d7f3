"""From errors to answers: one clear line, in the form that the clients of each face read.

/v1/…      {"error": {"message", "type", "param", "code"}}      as OpenAI
the rest   {"detail": "…"}                                       as A1111 and FastAPI
"""

from __future__ import annotations

import errno
import logging
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from lorablend.adapters.errors import (
    FaultError,
    ForbiddenError,
    InputError,
    LorablendError,
    MissingExtraError,
    NotFoundError,
    QueueFullError,
    RequestError,
    ResourceError,
)
from lorablend.app.jobs.jobs import Job
from lorablend.app.orders.draw import Draw
from lorablend.app.rest.shared import ClientGoneError, JobFailedError, reply

__all__ = [
    "ModelNotFoundError",
    "OpenAIRefusal",
    "ParameterError",
    "Refusal",
    "describe",
    "draw_of",
    "handle_errors",
    "refusal",
    "refusals",
    "status_of",
]

_LOG = logging.getLogger(__name__)
# The status of each kind of error; that of its nearest ancestor here for any other kind.
_STATUSES: dict[type[Exception], int] = {
    InputError: 400,
    ForbiddenError: 403,
    NotFoundError: 404,
    QueueFullError: 429,
    LorablendError: 500,
    FaultError: 500,
    MissingExtraError: 501,
    ResourceError: 507,
}
_DESCRIPTIONS = {
    400: "The request makes no sense",
    401: "No valid token or password",
    403: "The job belongs to another user, or a page of another site sent the request",
    404: "Nothing of that name",
    409: "The job was cancelled, or a job that waits or runs needs this",
    413: "The body is too large",
    421: "The request came to a host name that is not this server's",
    422: "A field of the request is wrong, or the job failed",
    429: "The queue is full, or there were too many wrong logins; Retry-After says when to try again",
    500: "A bug in lorablend, or a failing disk",
    501: "An optional dependency is not installed on the server",
    507: "Not enough disk or memory on the server",
}
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {404: "not_found", 413: "request_too_large", 429: "rate_limit_exceeded"}
_SQLITE_FULL = 13  # of its error codes, which Python has from 3.11 on
_ROOM = 1 << 20  # bytes; with less, a disk counts as full


class ModelNotFoundError(NotFoundError):
    """No base model of that name. OpenAI's clients expect a code of its own for it."""

    code = "model_not_found"


class ParameterError(RequestError):
    """One field of the request makes no sense.

    Attributes:
        param: The field's name.
        status: The HTTP status that clients of this face expect.
    """

    def __init__(self, param: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.param, self.status = param, status


class Refusal(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="One line for a person.")


class OpenAIError(BaseModel):
    """Why a request was refused, with OpenAI's words for the kind of error."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIRefusal(BaseModel):
    """Why a request was refused, in OpenAI's form."""

    error: OpenAIError


def refusals(*statuses: int, model: type[BaseModel] = Refusal) -> dict[int | str, dict[str, Any]]:
    """The error replies of a router or route, for openapi.json."""
    return {status: {"model": model, "description": _DESCRIPTIONS[status]} for status in statuses}


def status_of(kind: type[Exception]) -> int:
    """The HTTP status of a kind of error."""
    return next(_STATUSES[ancestor] for ancestor in kind.__mro__ if ancestor in _STATUSES)


def describe(status: int, text: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """OpenAI's form of an error."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    error = {"message": text, "type": kind, "param": param, "code": code or _CODES.get(status)}
    return {"error": error}


def refusal(
    path: str,
    status: int,
    text: str,
    headers: dict[str, str] | None = None,
    *,
    param: str | None = None,
    code: str | None = None,
) -> Response:
    """The reply to a refused request, in the form of the face that `path` belongs to."""
    text = " ".join(text.split())
    form = describe(status, text, param, code) if path.startswith("/v1/") else {"detail": text}
    return reply(form, status, headers)


def draw_of(fields: Mapping[str, Any]) -> Draw:
    """The drawing that another face's form orders. Raises RequestValidationError, which names the field."""
    try:
        return Draw.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


def handle_errors(app: FastAPI) -> None:
    """Turn every error of the app into a reply; errors that are not the client's fault are logged too."""

    def wrong(request: Request, error: Exception) -> Response:
        assert isinstance(error, LorablendError)
        text, path = request.app.state.service.public(error.message), request.url.path
        if isinstance(error, ParameterError):
            return refusal(path, error.status, text, param=error.param)
        status = status_of(type(error))
        if status in (500, 507):
            _LOG.error("%s %s: %s", request.method, path, error)
        headers = {"Retry-After": str(error.retry_after)} if isinstance(error, QueueFullError) else None
        code = error.code if isinstance(error, ModelNotFoundError) else None
        return refusal(path, status, text, headers, code=code)

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        param, text = _first(error.errors())
        path = request.url.path
        if isinstance(error.body, bytes):  # as `curl -d` alone sends it
            text = "the body is not declared as JSON; send the header Content-Type: application/json too"
        return refusal(path, 400 if path.startswith("/v1/") else 422, text, param=param)

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        text, status = str(error.detail), error.status_code
        if status in (404, 405) and text == HTTPStatus(status).phrase:  # Starlette's own, which names nothing
            reason = "does not exist" if status == 404 else f"does not take {request.method}"
            text = f"{request.url.path[:200]} {reason}; /openapi.json lists all paths"
        return refusal(request.url.path, status, text, dict(error.headers or {}))

    def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, JobFailedError)
        # OpenAI's client would try twice more, and so draw again what somebody has stopped.
        return refusal(request.url.path, _status_of_job(error.job), str(error), {"x-should-retry": "false"})

    def gone(_request: Request, _error: Exception) -> Response:
        return Response(status_code=499)  # never read: the client is gone

    def trouble(request: Request, error: Exception) -> Response:
        assert isinstance(error, (OSError, sqlite3.OperationalError))
        if isinstance(error, OSError):
            if error.errno == errno.ENAMETOOLONG:
                return refusal(
                    request.url.path, 400, "a name in the request is too long for a file; give a shorter one"
                )
            reason, is_full = error.strerror, error.errno in (errno.ENOSPC, errno.EDQUOT)
        else:
            reason, is_full = str(error), _is_full(request, error)
        if not reason:
            raise error
        _LOG.error("%s %s: %s", request.method, request.url.path, error)
        advice = "make room on the server's disk" if is_full else "the server's log says which"
        status = status_of(ResourceError if is_full else FaultError)
        return refusal(request.url.path, status, f"a file could not be read or written: {reason}; {advice}")

    def broken(request: Request, error: Exception) -> Response:
        text = f"a bug in lorablend ({type(error).__name__}); the server's log says more"
        return refusal(request.url.path, status_of(FaultError), text)

    handlers: dict[type[Exception], Any] = {
        LorablendError: wrong,
        RequestValidationError: invalid,
        HTTPException: http,
        JobFailedError: failed,
        ClientGoneError: gone,
        OSError: trouble,
        sqlite3.OperationalError: trouble,
        Exception: broken,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _status_of_job(job: Job) -> int:
    """422 for a job that would fail again for the same reason; a fault of ours or of the disk is another matter."""
    if job.state == "cancelled":
        return 409
    return status_of(FaultError) if job.error == FaultError.__name__ else 422


def _is_full(request: Request, error: sqlite3.OperationalError) -> bool:
    """Whether the disk of the queue and the gallery is full."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # Python 3.10
        return shutil.disk_usage(request.app.state.service.data).free < _ROOM
    return code & 0xFF == _SQLITE_FULL


def _first(errors: Sequence[Any]) -> tuple[str | None, str]:
    """The first wrong field, and a line about it that repeats only the beginning of its value."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return None, f"the body is not valid JSON ({first.get('ctx', {}).get('error', '')})"
    place = [str(part)[:80] for part in first["loc"] if part not in ("body", "query", "path")]
    field = ".".join(place)
    reason = first["msg"].removeprefix("Value error, ")
    value = first.get("input")
    given = "" if isinstance(value, dict | list) or first["type"] == "missing" else f", not {str(value)[:60]!r}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if not field:
        return None, f"the body: {reason}{more}"
    return place[0], f"{field}: {reason}{given}{more}"

"""From errors to answers: one clear line, in the form that the clients of each face read.

/v1/…      {"error": {"message", "type", "param", "code"}}      as OpenAI
the rest   {"detail": "…"}                                       as A1111 and FastAPI
"""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from lorablend.adapters.errors import InputError, LorablendError, MissingExtraError, RequestError, ResourceError
from lorablend.app.jobs.jobs import QueueFullError
from lorablend.app.orders.draw import Draw
from lorablend.app.rest.shared import ClientGoneError, JobFailedError, reply

__all__ = [
    "NotFoundError",
    "OpenAIRefusal",
    "ParameterError",
    "Refusal",
    "describe",
    "draw_of",
    "handle_errors",
    "refusal",
]

_LOG = logging.getLogger(__name__)
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {404: "not_found", 413: "request_too_large", 429: "rate_limit_exceeded"}


class NotFoundError(RequestError):
    """Something of that name is not there. code: OpenAI's word for it."""

    def __init__(self, text: str, code: str = "not_found") -> None:
        super().__init__(text)
        self.code = code


class ParameterError(RequestError):
    """One field of the request makes no sense. param: its name. status: what HTTP calls it."""

    def __init__(self, param: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.param, self.status = param, status


class Refusal(BaseModel):
    """Why a request was refused, in one line."""

    detail: str


class _OpenAIError(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIRefusal(BaseModel):
    """Why a request was refused, in OpenAI's form."""

    error: _OpenAIError


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
    """The answer that says no, in the form of the face that `path` belongs to."""
    text = " ".join(text.split())
    form = describe(status, text, param, code) if path.startswith("/v1/") else {"detail": text}
    return reply(form, status, headers)


def draw_of(fields: Mapping[str, Any]) -> Draw:
    """The drawing that another face's form asks for. Raises RequestValidationError, which names the field."""
    try:
        return Draw.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


def handle_errors(app: FastAPI) -> None:
    """Every error of the app becomes an answer; what is none of the client's fault goes to the log too."""

    def wrong(request: Request, error: Exception) -> Response:
        assert isinstance(error, LorablendError)
        text, path = request.app.state.service.public(str(error)), request.url.path
        if isinstance(error, QueueFullError):
            return refusal(path, 429, text, {"Retry-After": str(error.retry_after)})
        if isinstance(error, NotFoundError):
            return refusal(path, 404, text, code=error.code)
        if isinstance(error, ParameterError):
            return refusal(path, error.status, text, param=error.param)
        if isinstance(error, InputError):
            return refusal(path, 400, text)
        if isinstance(error, MissingExtraError):
            return refusal(path, 501, text)
        _LOG.error("%s %s: %s", request.method, path, error)
        return refusal(path, 507 if isinstance(error, ResourceError) else 500, text)

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        param, text = _first(error.errors())
        path = request.url.path
        if isinstance(error.body, bytes):  # as curl -d alone sends it
            text = "the body is not said to be JSON; send the header Content-Type: application/json too"
        return refusal(path, 400 if path.startswith("/v1/") else 422, text, param=param)

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        text = str(error.detail)
        if text in ("Not Found", "Method Not Allowed"):  # Starlette's own, without a name
            there = "is not there" if error.status_code == 404 else f"does not take {request.method}"
            text = f"{request.url.path[:200]} {there}; /openapi.json lists what is"
        return refusal(request.url.path, error.status_code, text, dict(error.headers or {}))

    def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, JobFailedError)
        # A job that failed for a reason of its own fails again; a fault of ours or of the disk is another matter.
        status = 409 if error.job.state == "cancelled" else 500 if "the server's log says" in str(error) else 422
        # OpenAI's client would ask twice more, and have drawn anew what somebody has stopped.
        return refusal(request.url.path, status, str(error), {"x-should-retry": "false"})

    def gone(_request: Request, _error: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it

    def trouble(request: Request, error: Exception) -> Response:
        assert isinstance(error, (OSError, sqlite3.OperationalError))
        if isinstance(error, OSError):
            reason, is_full = error.strerror, error.errno in (errno.ENOSPC, errno.EDQUOT)
        else:  # of the queue or the gallery, whose errors have numbers from Python 3.11 on only
            reason, is_full = str(error), "full" in str(error)
        if not reason:
            raise error
        _LOG.error("%s %s: %s", request.method, request.url.path, error)
        more = "make room on the server's disk" if is_full else "the server's log says which"
        return refusal(
            request.url.path, 507 if is_full else 500, f"a file could not be read or written: {reason}; {more}"
        )

    def broken(request: Request, error: Exception) -> Response:
        text = f"an error that is lorablend's own fault ({type(error).__name__}); the server's log says more"
        return refusal(request.url.path, 500, text)

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


def _first(errors: Sequence[Any]) -> tuple[str | None, str]:
    """The field that is wrong, and a line about it. What was sent is repeated only in short."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return None, f"the body is no JSON ({first.get('ctx', {}).get('error', '')})"
    place = [str(part)[:80] for part in first["loc"] if part not in ("body", "query", "path")]
    field = ".".join(place)
    reason = first["msg"].removeprefix("Value error, ")
    value = first.get("input")
    given = "" if isinstance(value, dict | list) or first["type"] == "missing" else f", not {str(value)[:60]!r}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if not field:
        return None, f"the body: {reason}{more}"
    return place[0], f"{field}: {reason}{given}{more}"

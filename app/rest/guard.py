"""The checks in front of everything that the server serves: host, login, origin, size of the body."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from urllib.parse import urlsplit

from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lorablend.app.auth import Credentials, host_of, is_loopback, without_token
from lorablend.app.rest.errors import refusal

__all__ = ["BODY_LIMIT", "UPLOAD_LIMIT", "Guard"]

BODY_LIMIT = 64 << 20  # bytes
UPLOAD_LIMIT = 8 << 30  # bytes, of an adapter
_ASKING = ("GET", "HEAD", "OPTIONS")
_SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"SAMEORIGIN"),
]


class Guard:
    """ASGI middleware that refuses requests; the user's name is in the scope as "lorablend.user".

    Args:
        app: The app behind the checks.
        credentials: Who may use it.
        hosts: The names that requests may come to, beside this machine's own; None for any.
        large: Paths that take large uploads.
        limit: Bytes of a body to any other path.
    """

    def __init__(
        self,
        app: ASGIApp,
        credentials: Credentials,
        *,
        hosts: Iterable[str] | None = None,
        large: Iterable[str] = (),
        limit: int = BODY_LIMIT,
    ) -> None:
        self._app, self._credentials = app, credentials
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._large, self._limit = frozenset(large), limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        answer = self._check_host(scope, headers)
        if answer is None and self._credentials.needed:
            user = await self._credentials.user(headers)
            answer = await self._log_in(scope, user)
            scope["lorablend.user"] = user
        if answer is None and _is_foreign(scope, headers):
            answer = refusal(scope["path"], 403, "a page of another site cannot change anything here")
        if scope["type"] == "websocket":
            if answer is not None:
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        limit = UPLOAD_LIMIT if scope["path"] in self._large else self._limit
        if answer is None and headers.get("content-length", "").isdecimal() and int(headers["content-length"]) > limit:
            answer = _too_large(scope["path"], limit)
        outer = _with_headers(send)
        if answer is not None:
            await answer(scope, receive, outer)
            return
        await self._app(scope, _limited(receive, limit), outer)

    def _check_host(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        host = host_of(headers.get("host", ""))
        if self._hosts is None or host in self._hosts or is_loopback(host):
            return None
        text = f"the host {host[:80]!r} is not this server's; use the address that it printed when it started"
        return refusal(scope["path"], 421, text)

    async def _log_in(self, scope: Scope, user: str | None) -> Response | None:
        """Log in a browser that comes with ?token=, by a redirect that removes it from the address; or refuse."""
        token, rest = without_token(scope["query_string"].decode("latin-1"))
        if token is not None and scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            name = await self._credentials.check("", token)
            if name is not None or user is not None:
                # A path that begins with two slashes or backslashes would be another server's name.
                path = "/" + scope.get("raw_path", scope["path"].encode()).decode("latin-1").lstrip("/\\")
                headers = {"Location": f"{path}?{rest}" if rest else path}
                if name is not None:
                    headers["Set-Cookie"] = self._credentials.cookie(name)
                return Response(status_code=303, headers=headers)
        if user is not None:
            return None
        text = "no valid token; send it as Authorization: Bearer TOKEN, or as the password"
        return refusal(scope["path"], 401, text, {"WWW-Authenticate": 'Basic realm="lorablend", charset="UTF-8"'})


def _is_foreign(scope: Scope, headers: dict[str, str]) -> bool:
    """Whether a web page of another site requests a change; programs send no Origin."""
    if scope["type"] == "http" and scope["method"] in _ASKING:
        return False
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site") in ("cross-site", "same-site")
    try:
        return urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    except ValueError:
        return True


def _too_large(path: str, limit: int) -> Response:
    return refusal(path, 413, f"the body is larger than {limit:,} bytes; send less")


def _limited(receive: Receive, limit: int) -> Receive:
    """Receive the same messages, but at most `limit` bytes in them."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, f"the body is larger than {limit:,} bytes; send less")
        return message

    return limited


def _with_headers(send: Send) -> Send:
    """Send the same reply with headers that protect browsers, and without those that let other sites read it."""

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in _SAFE} | {b"x-request-id"}
            others = [
                (name, value)
                for name, value in message.get("headers", [])
                if name.lower() not in own and not name.lower().startswith(b"access-control-")
            ]
            message = {**message, "headers": [*others, *_SAFE, (b"x-request-id", uuid.uuid4().hex.encode())]}
        await send(message)

    return guarded

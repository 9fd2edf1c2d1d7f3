"""The checks in front of everything that the server serves: host, login, origin, size of the body."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lorablend.app.auth import Credentials, host_of, is_loopback, login_of, without_token
from lorablend.app.rest.attempts import Attempts, TooManyError
from lorablend.app.rest.bodies import check_length, limited
from lorablend.app.rest.errors import refusal

__all__ = ["Guard"]

_ASKING = ("GET", "HEAD", "OPTIONS")
_PROBE = "/healthz"
_SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
# Gradio's page and /docs have scripts and styles of their own in the HTML, and Gradio makes functions of text.
_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    b"worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)


class Guard:
    """ASGI middleware that refuses requests; the user's name is in the scope as "lorablend.user".

    A probe of /healthz without a login passes with "lorablend.probe" in its scope, to be told the state alone.

    Args:
        app: The app behind the checks.
        credentials: Who may use it.
        data: The data folder, whose disk takes uploads.
        hosts: The names that requests may come to, beside this machine's own; None for any.
    """

    def __init__(
        self, app: ASGIApp, credentials: Credentials, data: Path, *, hosts: Iterable[str] | None = None
    ) -> None:
        self._app, self._credentials, self._data = app, credentials, data
        self._attempts = Attempts(credentials)
        self._hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        answer = self._check_host(scope, headers)
        # Before the login, so that other sites cannot try passwords from the addresses of their visitors.
        if answer is None and _is_foreign(scope, headers):
            answer = refusal(scope["path"], 403, "a page of another site cannot change or embed anything of this one")
        if answer is None and self._credentials.needed:
            answer = await self._log_in(scope, headers)
        if scope["type"] == "websocket":
            if answer is not None:
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        if answer is None:
            try:
                check_length(scope["path"], headers.get("content-length"), self._data)
            except HTTPException as error:
                answer = refusal(scope["path"], error.status_code, error.detail)
        outer = _with_headers(send)
        if answer is not None:
            await answer(scope, receive, outer)
            return
        try:
            await self._app(scope, limited(receive, scope["path"], self._data), outer)
        except ClientDisconnect:  # in the middle of an upload; nobody is there to be told
            return

    def _check_host(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        host = host_of(headers.get("host", ""))
        if self._hosts is None or host in self._hosts or is_loopback(host):
            return None
        text = f"the host {host[:80]!r} is not this server's; use the address that it printed when it started"
        return refusal(scope["path"], 421, text)

    async def _log_in(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        """Find out the user: by a login in the headers, by the cookie, or by ?token=; the answer if there is none.

        A browser that comes with ?token= is sent on to the address without it.
        """
        path, address = scope["path"], (scope.get("client") or ("",))[0]
        is_getting = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        name, password = login_of(headers.get("authorization", ""))
        token, rest = without_token(scope["query_string"].decode("latin-1"))
        user: str | None = None
        comes: str | None = None
        refused: TooManyError | None = None
        try:
            if password:
                user = await self._attempts.check(address, name, password)
            if token and is_getting:
                comes = await self._attempts.check(address, "", token)
        except TooManyError as error:
            refused = error
        if user is None:
            user = self._credentials.of_cookie(headers.get("cookie", ""), scope["server"][1])
        if token is not None and is_getting and (comes is not None or user is not None):
            # A path that begins with two slashes or backslashes would be another server's name.
            place = "/" + scope.get("raw_path", path.encode()).decode("latin-1").lstrip("/\\")
            found = {"Location": f"{place}?{rest}" if rest else place}
            # A link of another site must not make somebody another user, who does not notice it.
            if comes is not None and (user is None or not _is_elsewhere(headers)):
                secure = scope["scheme"] == "https"
                found["Set-Cookie"] = self._credentials.cookie(comes, scope["server"][1], secure=secure)
            return Response(status_code=303, headers=found)
        scope["lorablend.user"] = user
        if user is not None:
            return None
        if refused:
            return refusal(path, 429, str(refused), {"Retry-After": str(refused.retry_after)})
        if path == _PROBE and is_getting and not password and token is None:
            scope["lorablend.probe"] = True
            return None
        text = "no valid token; send it as Authorization: Bearer TOKEN, or as the password"
        return refusal(path, 401, text, {"WWW-Authenticate": 'Basic realm="lorablend", charset="UTF-8"'})


def _is_foreign(scope: Scope, headers: dict[str, str]) -> bool:
    """Whether a web page of another site requests a change, or a part of itself; programs send no such headers.

    Only its links may lead here.
    """
    is_elsewhere = _is_elsewhere(headers)
    if scope["type"] == "http" and scope["method"] in _ASKING:
        is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return is_elsewhere and not is_link
    origin = headers.get("origin")
    if origin is None:
        return is_elsewhere
    try:
        return urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    except ValueError:
        return True


def _is_elsewhere(headers: dict[str, str]) -> bool:
    return headers.get("sec-fetch-site") in ("cross-site", "same-site")


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
            safe = [*_SAFE, (b"x-request-id", uuid.uuid4().hex.encode())]
            if not any(name.lower() == b"content-security-policy" for name, _ in others):
                safe.append((b"content-security-policy", _POLICY))
            message = {**message, "headers": [*others, *safe]}
        await send(message)

    return guarded

"""Where a browser that came with ?token= logs out again."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from lorablend.app.auth import Credentials

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.get("/logout")
def ask() -> Response:
    """Ask first, because a link or a picture of another site may lead here."""
    return _page('<form method="post"><button>Log out</button></form>')


@router.post("/logout")
def log_out(request: Request) -> Response:
    """Make the browser forget its cookie. A password that it keeps itself is another matter."""
    answer = _page("<p>Logged out. A browser that asked for a password itself keeps it until it is closed.</p>")
    credentials: Credentials = request.app.state.credentials
    port, is_secure = request.scope["server"][1], request.scope["scheme"] == "https"
    answer.headers["Set-Cookie"] = credentials.no_cookie(port, secure=is_secure)
    return answer


def _page(content: str) -> HTMLResponse:
    return HTMLResponse(f'<!doctype html><html lang="en"><title>lorablend</title>{content}</html>')

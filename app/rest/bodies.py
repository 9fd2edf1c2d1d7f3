"""How large the bodies of requests may be, and whether the disk has room for them."""

from __future__ import annotations

import shutil
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

__all__ = ["BODY_LIMIT", "check_length", "limited"]

BODY_LIMIT = 1 << 20  # bytes of any other body: of JSON, tens of times as much is taken in memory
_PAGE_LIMIT = 4 << 20  # of Gradio's events; files go to its own path
_PICTURES_LIMIT = 64 << 20
_UPLOAD_LIMIT = 8 << 30
_PAGE = "/gradio_api/"
_PICTURES = {"/api/uploads", "/v1/images/edits", "/sdapi/v1/img2img", "/sdapi/v1/png-info"}
# Uploads of adapters and data sets, and how often each is on the disk until it is in its place.
_COPIES = {"/api/adapters": 2, "/api/train/sets": 3, f"{_PAGE}upload": 2}
_SPARE = 256 << 20  # bytes of the disk that uploads leave to the queue and the pictures
_LOOK = 64 << 20  # bytes between two looks at the disk


def check_length(path: str, length: str | None, data: Path) -> None:
    """Check the header Content-Length. Raises HTTPException: the body is too large, or there is no room in `data`."""
    if length is None or not length.isdecimal():
        return
    limit = _limit(path)
    if int(length) > limit:
        raise _too_large(limit)
    if path in _COPIES:
        _check_room(int(length) * _COPIES[path], data)


def limited(receive: Receive, path: str, data: Path) -> Receive:
    """Receive the same messages; raises HTTPException as `check_length`, for a body whose length was not said."""
    limit, received, looked = _limit(path), 0, 0

    async def receive_limited() -> Message:
        nonlocal received, looked
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(limit)
        if received - looked > _LOOK:
            looked = received
            _check_room(0, data)
        return message

    return receive_limited


def _limit(path: str) -> int:
    if path in _COPIES:
        return _UPLOAD_LIMIT
    if path in _PICTURES:
        return _PICTURES_LIMIT
    return _PAGE_LIMIT if path.startswith(_PAGE) else BODY_LIMIT


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the body is larger than {limit:,} bytes; send less")


def _check_room(size: int, data: Path) -> None:
    free = shutil.disk_usage(data).free - _SPARE
    if size > free:
        text = f"the upload needs {size / 1e9:.1f} GB, and the server's disk has {max(free, 0) / 1e9:.1f} GB free"
        raise HTTPException(507, f"{text}; make room on it")

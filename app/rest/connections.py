"""Connections: how long a client may take to send a request, and how many one address may have."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["Connection"]

_HEADER_TIME = 20.0  # seconds from the first moment, or from the previous request's end, to the end of the header
_BODY_TIME = 30.0  # seconds, in each of which windows at least so many bytes of a body arrive
_BODY_BYTES = 10_000
_MOST = 256  # connections of one address
_BUSY = (
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"too many connections from this address; close some\n"
)


class Connection(H11Protocol):
    """uvicorn's protocol with limits: uvicorn itself waits for ever for a request that does not come."""

    _open: ClassVar[Counter[str]] = Counter()  # by address

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._waits_for: object = None
        self._bytes, self._unread = 0, False  # of the body in this window; whether the app is behind
        self._address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self._open[self._address] += 1
        # Behind a proxy, all clients have its address.
        if self._open[self._address] > _MOST and "FORWARDED_ALLOW_IPS" not in os.environ:
            transport.write(_BUSY)
            transport.close()
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open[self._address] -= 1
        if not self._open[self._address]:
            del self._open[self._address]
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._bytes += len(data)
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def _watch(self) -> None:
        """Begin to wait for the header or the body, whichever the client has to send next; or for nothing."""
        waits_for = self.conn.their_state if self.conn.their_state in (h11.IDLE, h11.SEND_BODY) else None
        if waits_for is self._waits_for:
            return
        self._stop()
        self._waits_for = waits_for
        if waits_for is h11.IDLE:
            self._timer = self.loop.call_later(_HEADER_TIME, self.transport.close)
        elif waits_for is h11.SEND_BODY:
            self._bytes, self._unread = 0, False
            self._timer = self.loop.call_later(_BODY_TIME, self._look)

    def _look(self) -> None:
        """Whether the body comes; the client is not late while nobody reads what it has sent."""
        was_unread, self._unread = self._unread, self.flow.read_paused
        if self._bytes < _BODY_BYTES and not (was_unread or self._unread):
            self.transport.close()
            return
        self._bytes = 0
        self._timer = self.loop.call_later(_BODY_TIME, self._look)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._waits_for = None, None

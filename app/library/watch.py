"""A look at a download from outside: one that is stopped, too slow or too long ends, whatever its server does.

A read that waits for its server cannot be interrupted. So another thread watches, and shuts the connection.
"""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lorablend.adapters.errors import AdapterError, Cancelled

__all__ = ["UNLIMITED", "Limits", "Progress", "Watch"]

Progress = Callable[[int, "int | None"], object]  # (bytes so far, bytes in all or None); returns False to stop

_LOOK = 0.25  # seconds between two looks
_QUIET = 1.0  # seconds without a byte, after which the progress is told all the same
_WINDOW = 60.0  # seconds over which the speed is measured


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a download may take; None for no limit.

    Attributes:
        size: Bytes of the file.
        seconds: For the whole download.
        speed: The least bytes a second, as the mean of a minute.
    """

    size: int | None = None
    seconds: float | None = None
    speed: float | None = None


UNLIMITED = Limits()


class Watch:
    """Watches one download, in a thread that lives as long as the block.

    Args:
        where: What messages call the download.
        limits: When it ends. The size is left to the caller.
        progress: Called by `tell`, and about once a second while nothing arrives, in the other thread.
    """

    def __init__(self, where: str, limits: Limits, progress: Progress | None = None) -> None:
        self._where, self._limits, self._progress = where, limits, progress
        self._verdict: Exception | None = None
        self._sockets: list[socket.socket] = []
        self._done, self._total = 0, None
        self._heard = self._begun = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def tell(self, done: int, total: int | None) -> None:
        """Pass the progress on. Raises what `check` raises."""
        self._done, self._total, self._heard = done, total, time.monotonic()
        self._ask()
        self.check()

    def check(self) -> None:
        """Raise why the download has to end, if it has: Cancelled or AdapterError."""
        if self._verdict is not None:
            raise self._verdict

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Learn of each connection: httpcore's request extension "trace"."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._sockets.append(info["return_value"].get_extra_info("socket"))
            if self._verdict is not None:
                self._shut()

    def _work(self) -> None:
        before, since = self._done, self._begun
        while not self._ended.wait(_LOOK):
            now = time.monotonic()
            if now - self._heard >= _QUIET:
                self._heard = now
                self._ask()
            if self._limits.seconds is not None and now - self._begun > self._limits.seconds:
                minutes = self._limits.seconds / 60
                self._end(f"not complete after {minutes:g} minutes; try again to continue from there")
            if now - since >= _WINDOW:
                if self._limits.speed is not None and self._done - before < self._limits.speed * (now - since):
                    speed = self._limits.speed / 1000
                    self._end(f"less than {speed:g} kB arrive in a second; try again later, or give the file itself")
                before, since = self._done, now
            if self._verdict is not None:
                self._shut()

    def _ask(self) -> None:
        try:
            if self._progress and self._progress(self._done, self._total) is False:
                self._verdict = self._verdict or Cancelled(f"{self._where}: stopped")
        except Exception as error:  # raised by `check`, in the thread of the download
            self._verdict = self._verdict or error

    def _end(self, reason: str) -> None:
        self._verdict = self._verdict or AdapterError(f"{self._where}: {reason}")

    def _shut(self) -> None:
        for one in self._sockets:
            try:
                socket.socket.shutdown(one, socket.SHUT_RDWR)  # ssl's own would change what the other thread reads from
            except OSError:  # closed already
                continue

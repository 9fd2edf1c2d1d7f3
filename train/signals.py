"""Ctrl-C and SIGTERM during a training, caught so that it can end in good order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["stop_signals"]


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGINT or SIGTERM has come.

    The first signal restores the previous handlers, so that a second one acts as usual. Only the main thread may set
    handlers; in any other thread the signals keep their meaning.
    """
    received = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield received.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: object) -> None:
        received.set()
        restore()

    for number in before:
        signal.signal(number, stop)
    try:
        yield received.is_set
    finally:
        restore()

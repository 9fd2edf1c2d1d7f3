"""Ctrl-C and SIGTERM during a training: noticed, so that it can end in good order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["stop_signals"]


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come; after the first one the old handlers are back, so the second one acts.

    Only the main thread may set handlers; elsewhere the signals do what they always did.
    """
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: object) -> None:
        told.set()
        restore()

    for number in before:
        signal.signal(number, stop)
    try:
        yield told.is_set
    finally:
        restore()

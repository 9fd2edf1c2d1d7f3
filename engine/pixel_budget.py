"""One budget of pixels for all pictures that a process decodes at a time, so that many do not fill the memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["BUDGET", "decoding"]

BUDGET = 1 << 26
"""Pixels: four of the largest pictures that can be drawn, or one of a large camera."""

_turn = threading.Lock()  # held by the one who waits for pixels: a large picture is not overtaken by small ones
_changed = threading.Condition()
_free = BUDGET
_own = threading.local()


@contextmanager
def decoding(pixels: int) -> Iterator[None]:
    """Wait until the budget has room for a picture, and hold its pixels meanwhile.

    A picture larger than the whole budget waits until it is the only one. Within another such block of the same thread
    nothing more is held, for waiting there for oneself would never end.
    """
    global _free
    if getattr(_own, "holds", False):
        yield
        return
    held = min(pixels, BUDGET)
    with _turn, _changed:
        while _free < held:
            _changed.wait()
        _free -= held
    _own.holds = True
    try:
        yield
    finally:
        _own.holds = False
        with _changed:
            _free += held
            _changed.notify_all()

"""How fast a training goes, and when it will be done."""

from __future__ import annotations

import time
from collections import deque

__all__ = ["Pace"]


class Pace:
    """Pictures per second over the last steps, and how long the rest will take."""

    def __init__(self, step: int, steps: int) -> None:
        self._times = deque([(time.monotonic(), 0)], maxlen=21)
        self._started, self._first, self._step, self._steps = time.monotonic(), step, step, steps

    def add(self, pictures: int) -> float:
        self._step += 1
        self._times.append((time.monotonic(), pictures))
        (begin, _), *later = self._times
        return sum(count for _, count in later) / max(later[-1][0] - begin, 1e-9)

    def eta(self) -> float:
        done = self._step - self._first
        return (time.monotonic() - self._started) / done * (self._steps - self._step)

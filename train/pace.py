"""The speed of a training, and the time it still takes."""

from __future__ import annotations

import time
from collections import deque

__all__ = ["Pace"]


class Pace:
    """Measures the pace of a training from its first step in this process, `step` of `steps`."""

    def __init__(self, step: int, steps: int) -> None:
        self._times = deque([(time.monotonic(), 0)], maxlen=21)
        self._started, self._first, self._step, self._steps = time.monotonic(), step, step, steps

    def add(self, pictures: int) -> float:
        """Count a step of this many pictures; return the pictures per second over the last twenty steps."""
        self._step += 1
        self._times.append((time.monotonic(), pictures))
        (begin, _), *later = self._times
        return sum(count for _, count in later) / max(later[-1][0] - begin, 1e-9)

    def eta(self) -> float:
        """Seconds until the last step is done."""
        done = self._step - self._first
        return (time.monotonic() - self._started) / done * (self._steps - self._step)

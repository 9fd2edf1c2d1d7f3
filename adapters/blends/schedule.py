"""When an adapter acts: a factor of its weight for every step of a run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from lorablend.adapters.errors import BlendError
from lorablend.adapters.forms import finite, refuse_unknown
from lorablend.adapters.wording import shown

__all__ = ["Bound", "Schedule"]

Bound = int | float | None
"""Where a window begins or ends: a step counted from 1 (int), a fraction of the run (float), or as the run does."""

_KEYS = ("start", "stop", "ramp")
_ROUNDING = 1e-9  # of a step: 0.3 * 10 is a little more than 3


@dataclass(frozen=True)
class Schedule:
    """A window of steps in which an adapter acts, optionally with a linear ramp. Without arguments it always acts.

    Steps are counted as in A1111's block-weight extension (hako-mikan/sd-webui-lora-block-weight,
    `denoiser_callback`), where `step=3-10` acts in steps 3 to 9. An int is a step, counted from 1; a float is a
    fraction of the run, so that start=0.25 and stop=0.5 is the second quarter. Windows that meet share no step.

    Attributes:
        start: The first step in which the adapter acts; None for the first step of the run.
        stop: The first step in which it no longer acts; None to act until the end of the run.
        ramp: The factors at the first and the last step of the window; None for 1 throughout.

    Raises:
        BlendError: The window contains no step, or a value is out of range.
    """

    start: Bound = None
    stop: Bound = None
    ramp: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        start, stop = _bound(self.start, "start"), _bound(self.stop, "stop")
        empty = stop is not None and (stop <= 0 or (isinstance(stop, int) and stop == 1))
        empty |= isinstance(start, float) and start == 1
        empty |= start is not None and stop is not None and type(start) is type(stop) and start >= stop
        if empty:
            raise BlendError(f"there is no step in the window from {_shown(start, 'start')} to {_shown(stop, 'end')}")
        # The ends of the run become None, however they were written, so that equal schedules compare equal.
        object.__setattr__(self, "start", None if start == 0 or _is_step(start, 1) else start)
        object.__setattr__(self, "stop", None if isinstance(stop, float) and stop == 1 else stop)
        object.__setattr__(self, "ramp", None if self.ramp is None else _ramp(self.ramp))

    def at(self, step: int, steps: int) -> float:
        """Return the factor in step `step`, counted from 0, of a run of `steps` steps."""
        first, end = self._window(steps)
        if not first <= step < end:
            return 0.0
        if self.ramp is None:
            return 1.0
        low, high = self.ramp
        return high if end - first == 1 else low + (high - low) * (step - first) / (end - first - 1)

    def values(self, steps: int) -> tuple[float, ...]:
        """Return the factors in all steps of a run of `steps` steps."""
        return tuple(self.at(step, steps) for step in range(steps))

    def _window(self, steps: int) -> tuple[int, int]:
        """Return the first step that is on and the first that is off again, counted from 0, within the run."""
        first = 0 if self.start is None else _index(self.start, steps)
        end = steps if self.stop is None else _index(self.stop, steps)
        return first, min(end, steps)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, with only the settings that are not None."""
        form = {"start": self.start, "stop": self.stop, "ramp": None if self.ramp is None else list(self.ramp)}
        return {key: value for key, value in form.items() if value is not None}

    @classmethod
    def from_json(cls, form: object) -> "Schedule":
        """Read the JSON form, `{"start": 3, "stop": 10, "ramp": [0, 1]}`; all keys are optional. Raises BlendError."""
        if not isinstance(form, Mapping):
            raise BlendError(f'schedule {shown(form)} is not of the form {{"start": 3, "stop": 10, "ramp": [0, 1]}}')
        refuse_unknown(form, _KEYS)
        return cls(form.get("start"), form.get("stop"), form.get("ramp"))


def _bound(value: object, what: str) -> Bound:
    if value is None:
        return None
    if isinstance(value, Integral) and not isinstance(value, bool):
        if value < 0:
            raise BlendError(f"{what} {value} is not a step; steps are counted from 1")
        return int(value)
    part = finite(value, what)
    if not 0 <= part <= 1:
        raise BlendError(f"{what} {part} is neither a whole step nor a fraction of the run from 0.0 to 1.0")
    return part


def _is_step(bound: Bound, step: int) -> bool:
    return isinstance(bound, int) and bound == step


def _shown(bound: Bound, end: str) -> str:
    return f"the {end}" if bound is None else f"step {bound}" if isinstance(bound, int) else f"{bound} of the run"


def _index(bound: int | float, steps: int) -> int:
    """Return the step that begins at `bound`, counted from 0."""
    return max(bound - 1, 0) if isinstance(bound, int) else math.ceil(bound * steps - _ROUNDING)


def _ramp(ramp: object) -> tuple[float, float] | None:
    if not isinstance(ramp, Sequence) or isinstance(ramp, str) or len(ramp) != 2:
        raise BlendError(f"ramp {shown(ramp)} is not two numbers, the factors at its first and its last step")
    low, high = finite(ramp[0], "ramp"), finite(ramp[1], "ramp")
    return None if low == high == 1 else (low, high)

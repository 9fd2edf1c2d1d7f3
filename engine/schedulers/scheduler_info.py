"""What the planner has to know about a scheduler. Each sampler's file fills one in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from lorablend.engine.schedulers.noise_schedule import NoiseSchedule
from lorablend.engine.schedulers.plans import Array, Denoise, Levels, Noise, Plan
from lorablend.engine.schedulers.spacing import SPACINGS, TIMESTEP_SPACINGS

__all__ = ["Family", "SchedulerInfo"]

Family: TypeAlias = Literal["euler", "multistep", "ddim", "distilled"]
"""How diffusers lays out the timesteps of several schedulers, see `plan()`."""

_SPACINGS: dict[Family, tuple[str, ...]] = {
    "euler": SPACINGS,
    "multistep": SPACINGS,
    "ddim": TIMESTEP_SPACINGS,
    "distilled": ("trailing",),
}


def _as_configured(schedule: NoiseSchedule) -> bool:
    return schedule.ends_at_zero


def _never(levels: Levels, schedule: NoiseSchedule) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class SchedulerInfo:
    """One scheduler.

    Attributes:
        label: The name that people and other programs' metadata use, which is A1111's.
        aliases: Other names for it: A1111's own, those of the same form, and ComfyUI's.
        diffusers_class: The diffusers class that draws the same picture, or None if another scheduler stands for it.
        sampler: The function that runs it: (denoise, x, plan, noise) -> x0.
        family: How diffusers lays out its timesteps.
        default_spacing: The spacing if neither the caller nor the model's config names one that it takes.
        ends_at_zero: Whether a run ends at noise level 0, rather than at that of training timestep 0.
        levels_down: The noise level to which the deterministic part of each step goes down, [steps]; the last of them
            is where the run ends.
        first_order_end: Whether the last step ignores the step before it.
    """

    label: str
    aliases: tuple[str, ...]
    diffusers_class: str | None
    sampler: Callable[[Denoise, Array, Plan, Noise], Array]
    family: Family
    default_spacing: str
    ends_at_zero: Callable[[NoiseSchedule], bool] = _as_configured
    levels_down: Callable[[Levels], Array] = Levels.next_sigmas
    first_order_end: Callable[[Levels, NoiseSchedule], bool] = _never

    @property
    def spacings(self) -> tuple[str, ...]:
        """The members of `SPACINGS` that it takes."""
        return _SPACINGS[self.family]

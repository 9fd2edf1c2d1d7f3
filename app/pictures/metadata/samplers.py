"""Other programs' names of samplers and schedules, on top of A1111's and ComfyUI's, which the schedulers know."""

from __future__ import annotations

from lorablend.engine.schedulers import SPACINGS
from lorablend.engine.schedulers.a1111 import SCHEDULE_TYPES, read_sampler, read_schedule_type

__all__ = ["read_schedule", "read_scheduler"]

_SAMPLERS = {
    "ddim_v3": "ddim",  # NovelAI
    "euler ancestral": "euler_a",  # Draw Things
}
# Schedules that programs write into a sampler's name: InvokeAI "dpmpp_2m_k", Draw Things "Euler A Trailing", savers of
# ComfyUI "dpmpp_2m_sgm_uniform" and "euler_simple".
_SCHEDULES = {"k": "karras", "trailing": "trailing"} | {
    name: kind.spacing for kind in SCHEDULE_TYPES if kind.spacing for name in (kind.name, *kind.aliases)
}
_NOT_HERE = (
    "simple",
    "beta",
    "linear_quadratic",
    "kl_optimal",
    "align_your_steps",
    "polyexponential",
    "ays",
    "substep",
)
_LONGEST = 100  # letters of a name
_OWN = ("native", "uniform")  # NovelAI's and SD.Next's words for the model's own levels


def read_scheduler(name: str) -> tuple[str | None, str | None]:
    """What a sampler's name stands for.

    Returns:
        The scheduler, None if it is not here; and the schedule that the name has too, as `read_schedule` reads it,
            None for none.
    """
    folded = " ".join(name[:_LONGEST].casefold().split())
    scheduler, spacing = read_sampler(folded)
    if scheduler is not None or folded in _SAMPLERS:
        return scheduler or _SAMPLERS[folded], spacing
    for schedule in (*_SCHEDULES, *_NOT_HERE):
        for ending in (f"_{schedule}", f" {schedule}"):
            if folded.endswith(ending) and (scheduler := read_scheduler(folded.removesuffix(ending))[0]):
                return scheduler, _SCHEDULES.get(schedule, schedule)
    return None, spacing


def read_schedule(name: str) -> tuple[bool, str | None]:
    """Whether a schedule's name is known; and its spacing, None if it leaves that to the model."""
    folded = name.casefold().strip()
    if folded in _OWN:
        return True, None
    if folded in SPACINGS:
        return True, folded
    kind = read_schedule_type(folded)
    return kind is not None, kind.spacing if kind else None

"""Other programs' names of samplers and schedules, on top of A1111's and ComfyUI's, which the schedulers know."""

from __future__ import annotations

from lorablend.engine.schedulers import SPACINGS
from lorablend.engine.schedulers.a1111 import read_sampler, read_schedule_type

__all__ = ["read_schedule", "read_scheduler"]

# Endings by which programs write a schedule into a sampler's name, as InvokeAI's "dpmpp_2m_k" and Draw Things' "Euler A
# Trailing".
_ENDINGS = {"_k": "karras", "_karras": "karras", " trailing": "trailing"}
_SAMPLERS = {
    "ddim_v3": "ddim",  # NovelAI
    "euler ancestral": "euler_a",  # Draw Things
}
_OWN = ("native", "uniform")  # NovelAI's and SD.Next's words for the model's own levels


def read_scheduler(name: str) -> tuple[str | None, str | None]:
    """The scheduler that a sampler's name stands for, None if it is not here; and the spacing in it, None for none."""
    folded = " ".join(name.casefold().split())
    scheduler, spacing = read_sampler(folded)
    if scheduler is not None:
        return scheduler, spacing
    if folded in _SAMPLERS:
        return _SAMPLERS[folded], None
    for ending, written in _ENDINGS.items():
        if folded.endswith(ending):
            scheduler, _ = read_scheduler(folded.removesuffix(ending))
            return scheduler, written if scheduler else None
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

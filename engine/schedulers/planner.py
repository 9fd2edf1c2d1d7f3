"""Lay out a run: which timesteps and noise levels it visits, where it starts and where it ends."""

import math
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from lorablend.adapters.errors import ModelError, RequestError
from lorablend.engine.schedulers.catalogue import SCHEDULERS
from lorablend.engine.schedulers.noise_schedule import NoiseSchedule
from lorablend.engine.schedulers.plans import Array, Levels, Plan
from lorablend.engine.schedulers.scheduler_info import SchedulerInfo
from lorablend.engine.schedulers.spacing import SIGMA_SPACINGS, SPACINGS, distilled, timesteps_at, timesteps_of

__all__ = ["plan"]

_MOST_STEPS = 1000

# These replace an alphas_cumprod of 0, whose sigma would be infinite. diffusers uses 2^-24 in the k-diffusion
# schedulers. It keeps 0 in ddim, lcm and tcd, where 2^-48 is as good: the signal is then 2^-24 of the noise.
_SMALLEST_ALPHA = {"euler": 2.0**-24, "multistep": 2.0**-24, "ddim": 2.0**-48, "distilled": 2.0**-48}
_SIGMA_ZERO_SNR = 2.0**24


def plan(
    name: str,
    steps: int,
    schedule: NoiseSchedule,
    spacing: str | None = None,
    strength: float | None = None,
    timesteps: Sequence[float] | None = None,
) -> Plan:
    """Plan a run with the numbers of the matching diffusers class, made from the same config.

    Args:
        name: A key of `SCHEDULERS`.
        steps: How many times the model is called, before `strength` shortens the run.
        schedule: The model's noise schedule.
        spacing: One of `SPACINGS`. None is the model's own, or the scheduler's default if it does not take that one.
        strength: For image to image: the share of the steps that is run, above 0 and at most 1, counted from the end.
        timesteps: Instead of `spacing`, one for each of the `steps`: what the model is given, falling, within the
            timesteps that it was trained on. Only the Euler family takes fractions.

    Raises:
        RequestError: a value is unknown, is out of range, or contradicts another one.
        ModelError: the model's own spacing is not built here.
    """
    info = _find(name)
    table = schedule.sigmas(_SMALLEST_ALPHA[info.family])
    if timesteps is None:
        spacing, timestep_spacing = _resolve_spacing(name, info, schedule, spacing)
        _check_steps(name, info, steps, schedule, len(table))
        told, sigmas = _spaced_levels(info, spacing, timestep_spacing, steps, schedule, table)
        if np.any(np.diff(sigmas) >= 0):
            raise RequestError(f"steps {steps} is too many for {name} with {spacing} spacing: two share a timestep")
    else:
        _check_timesteps(name, info, timesteps, steps, spacing, len(table))
        spacing, timestep_spacing = None, _own_spacing(info, schedule)
        told = np.array(timesteps, _timestep_type(info))
        sigmas = np.interp(told, np.arange(len(table)), table)
    end = 0.0 if info.ends_at_zero(schedule) else float(table[0])
    levels = Levels(told, sigmas.astype(np.float32), end, table, spaced=spacing is not None)
    sigmas_down = info.levels_down(levels).astype(np.float32)

    skipped = _skipped(steps, strength)
    # Variance-preserving latents start as plain noise, which is noise * sqrt(sigma^2 + 1) here. The Euler family starts
    # so too in the leading spacing, and otherwise at the top of its levels.
    start = float(levels.sigmas[skipped])
    if schedule.prediction_type == "epsilon" and start >= _SIGMA_ZERO_SNR:
        raise RequestError(f"{name} cannot start from zero SNR with epsilon prediction: choose euler")
    at_top = info.family == "euler" and timestep_spacing != "leading"
    return Plan(
        name=name,
        spacing=spacing,
        timesteps=told[skipped:],
        sigmas=np.append(levels.sigmas, sigmas_down[-1])[skipped:],
        init_sigma=start if at_top else math.sqrt(start**2 + 1),
        sigmas_down=sigmas_down[skipped:],
        first_order_end=info.first_order_end(levels, schedule),
        clip=schedule.clip,
    )


def _find(name: str) -> SchedulerInfo:
    if name not in SCHEDULERS:
        nearest = sorted(SCHEDULERS, key=lambda known: -SequenceMatcher(None, name, known).ratio())
        raise RequestError(f'unknown scheduler "{name}": choose one of {", ".join(nearest)}')
    return SCHEDULERS[name]


def _resolve_spacing(name: str, info: SchedulerInfo, schedule: NoiseSchedule, spacing: str | None) -> tuple[str, str]:
    """The spacing to use, and the timestep spacing below it: karras and exponential build on the model's own."""
    own = _own_spacing(info, schedule)
    if spacing is None and schedule.sigma_spacing is not None and "karras" in info.spacings:
        spacing = schedule.sigma_spacing
        if spacing not in SIGMA_SPACINGS:
            choices = ", ".join(info.spacings)
            raise ModelError(f"the model's own {spacing} spacing is not supported: choose one of {choices}")
    spacing = spacing or own
    if spacing not in SPACINGS:
        raise RequestError(f'unknown spacing "{spacing}": choose one of {", ".join(SPACINGS)}')
    if spacing not in info.spacings:
        raise RequestError(f"{name} does not take {spacing} spacing: choose one of {', '.join(info.spacings)}")
    return spacing, own if spacing in SIGMA_SPACINGS else spacing


def _own_spacing(info: SchedulerInfo, schedule: NoiseSchedule) -> str:
    """The timestep spacing of the model's config, or the scheduler's default if it does not take that one."""
    return schedule.timestep_spacing if schedule.timestep_spacing in info.spacings else info.default_spacing


def _check_steps(name: str, info: SchedulerInfo, steps: int, schedule: NoiseSchedule, train_steps: int) -> None:
    most = min(_MOST_STEPS, train_steps)
    if info.family == "distilled":
        most = min(most, schedule.original_inference_steps)
    if not 1 <= steps <= most:
        raise RequestError(f"steps {steps} is out of range for {name}: give 1 to {most}")


def _check_timesteps(
    name: str, info: SchedulerInfo, timesteps: Sequence[float], steps: int, spacing: str | None, train_steps: int
) -> None:
    if spacing is not None:
        raise RequestError(f"spacing {spacing} and timesteps are both given: give one of the two")
    if len(timesteps) != steps:
        raise RequestError(f"steps is {steps}, but {len(timesteps)} timesteps are given: give one of the two")
    for before, after in pairwise(timesteps):
        if not before > after:
            raise RequestError(f"timesteps must fall, but {after:g} comes after {before:g}: give the largest first")
    for timestep in timesteps:
        if not 0 <= timestep <= train_steps - 1:
            raise RequestError(
                f"timestep {timestep:g} is out of range: the model was trained on 0 to {train_steps - 1}"
            )
        if info.family != "euler" and timestep != int(timestep):
            raise RequestError(
                f"timestep {timestep:g} is a fraction, which {name} cannot take: round it, or choose euler"
            )


def _spaced_levels(
    info: SchedulerInfo, spacing: str, timestep_spacing: str, steps: int, schedule: NoiseSchedule, table: Array
) -> tuple[npt.NDArray[Any], Array]:
    """The timesteps and sigmas at which the steps begin, [steps] each."""
    train_steps = len(table)
    if info.family == "distilled":
        timesteps = distilled(steps, train_steps, schedule.original_inference_steps)
        return timesteps, table[timesteps]
    # A multistep solver spreads one point more, and leaves the lowest to the step that ends at sigma 0.
    skip = 1 if info.family == "multistep" else 0
    timesteps = timesteps_at(timestep_spacing, steps, train_steps, schedule.steps_offset, skip)
    if info.family != "euler":
        timesteps = timesteps.round()
    sigmas = np.interp(timesteps, np.arange(train_steps), table)
    if spacing in SIGMA_SPACINGS:
        # The Euler family stays between the ends that it has; the others span the whole table.
        top, bottom = (sigmas[0], sigmas[-1]) if info.family == "euler" else (table[-1], table[0])
        sigma_max = float(top) if schedule.sigma_max is None else schedule.sigma_max
        sigma_min = float(bottom) if schedule.sigma_min is None else schedule.sigma_min
        sigmas = SIGMA_SPACINGS[spacing](sigma_max, sigma_min, steps)
        timesteps = timesteps_of(sigmas, table)
        if info.family != "euler" and spacing == "karras":
            timesteps = timesteps.round()
    return timesteps.astype(_timestep_type(info)), sigmas


def _timestep_type(info: SchedulerInfo) -> type[np.float32] | type[np.int64]:
    return np.float32 if info.family == "euler" else np.int64


def _skipped(steps: int, strength: float | None) -> int:
    """How many steps at its start an image-to-image run leaves out."""
    if strength is None:
        return 0
    if not 0 < strength <= 1:
        raise RequestError(f"strength {strength} is out of range: give more than 0 and at most 1")
    skipped = steps - int(steps * strength)
    if skipped == steps:
        least = math.ceil(1000 / steps) / 1000
        raise RequestError(f"strength {strength} of {steps} steps leaves none to run: give {least} or more")
    return skipped

"""TCD."""

import numpy as np

from lorablend.engine.schedulers.plans import Array, Denoise, Levels, Noise, Plan
from lorablend.engine.schedulers.scheduler_info import SchedulerInfo

__all__ = ["TCD"]

# How far a step goes down past the next timestep before new noise brings it back: the paper's gamma, and the default
# eta of diffusers' TCDScheduler.step.
_GAMMA = 0.3


def _sample(denoise: Denoise, x: Array, plan: Plan, noise: Noise) -> Array:
    """Trajectory consistency distillation, arXiv:2402.19159, algorithm 4, strategic stochastic sampling.

    Each step follows the trajectory down to sigmas_down, then adds new noise up to the next sigma.
    """
    for (t, sigma, sigma_next), sigma_down in zip(plan.steps(), plan.sigmas_down.tolist(), strict=True):
        denoised = denoise(x, sigma, t)
        x = denoised + (sigma_down / sigma) * (x - denoised)
        if sigma_next > sigma_down:
            x = x + (sigma_next**2 - sigma_down**2) ** 0.5 * noise()
    return x


def _levels_down(levels: Levels) -> Array:
    """The levels of (1 - gamma) times the next step's timestep, in float32, as torch multiplies integers by a float."""
    following = np.append(levels.timesteps[1:], 0).astype(np.float32)
    return levels.table[np.floor(np.float32(1 - _GAMMA) * following).astype(np.int64)]


TCD = SchedulerInfo(
    label="TCD",
    aliases=("k_tcd",),
    diffusers_class="TCDScheduler",
    sampler=_sample,
    family="distilled",
    default_spacing="trailing",
    levels_down=_levels_down,
)

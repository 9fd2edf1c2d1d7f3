"""DDIM."""

import numpy as np

from lorablend.engine.schedulers.plans import Array, Denoise, Levels, Noise, Plan
from lorablend.engine.schedulers.scheduler_info import SchedulerInfo

__all__ = ["DDIM"]


def _sample(denoise: Denoise, x: Array, plan: Plan, noise: Noise) -> Array:
    """Denoising diffusion implicit models, arXiv:2010.02502, equation 12 with eta 0; draws no noise."""
    for (t, sigma, sigma_next), sigma_down in zip(plan.steps(), plan.sigmas_down.tolist(), strict=True):
        denoised = denoise(x, sigma, t)
        epsilon = (x - denoised) / sigma
        if plan.clip is not None:
            denoised = np.clip(denoised, -plan.clip, plan.clip)
        x = denoised + sigma_down * epsilon
        # diffusers steps down by a fixed number of timesteps. If the next step does not begin exactly there (trailing
        # with 30 steps, any linspace), it goes on with the same unit-variance latents. So do we, for equal pictures.
        x = x * ((sigma_next**2 + 1) / (sigma_down**2 + 1)) ** 0.5
    return x


def _levels_down(levels: Levels) -> Array:
    """A fixed number of timesteps down, wherever the next step begins; the caller's own timesteps join up."""
    if not levels.spaced:
        return levels.next_sigmas()
    down = levels.timesteps - len(levels.table) // len(levels.timesteps)
    return np.where(down >= 0, levels.table[np.maximum(down, 0)], levels.end)


DDIM = SchedulerInfo(
    label="DDIM",
    aliases=("k_ddim",),
    diffusers_class="DDIMScheduler",
    sampler=_sample,
    family="ddim",
    default_spacing="leading",
    ends_at_zero=lambda schedule: schedule.ddim_ends_at_zero,
    levels_down=_levels_down,
)

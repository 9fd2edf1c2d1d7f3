"""LCM."""

import numpy as np

from lorablend.engine.schedulers.plans import Array, Denoise, Noise, Plan
from lorablend.engine.schedulers.scheduler_info import SchedulerInfo

__all__ = ["LCM"]

_SIGMA_DATA = 0.5
_TIMESTEP_SCALING = 10.0


def _sample(denoise: Denoise, x: Array, plan: Plan, noise: Noise) -> Array:
    """Latent consistency models, arXiv:2310.04378: multistep consistency sampling, arXiv:2303.01469, algorithm 1."""
    for t, sigma, sigma_next in plan.steps():
        denoised = denoise(x, sigma, t)
        if plan.clip is not None:
            denoised = np.clip(denoised, -plan.clip, plan.clip)
        # The consistency function, which is the identity at t = 0.
        scaled = _TIMESTEP_SCALING * t
        skip = _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
        out = scaled / (scaled**2 + _SIGMA_DATA**2) ** 0.5
        x = out * denoised + (skip / (sigma**2 + 1) ** 0.5) * x
        if sigma_next > 0:
            x = x + sigma_next * noise()
    return x


LCM = SchedulerInfo(
    label="LCM",
    aliases=("k_lcm",),
    diffusers_class="LCMScheduler",
    sampler=_sample,
    family="distilled",
    default_spacing="trailing",
    ends_at_zero=lambda _: True,  # the last step returns the denoised latents
)

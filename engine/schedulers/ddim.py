"""DDIM."""

import numpy as np

from lorablend.engine.schedulers.plans import Array, Denoise, Noise, Plan

__all__ = ["sample_ddim"]


def sample_ddim(denoise: Denoise, x: Array, plan: Plan, noise: Noise) -> Array:
    """Denoising diffusion implicit models, arXiv:2010.02502, equation 12 with eta 0; draws no noise."""
    for (t, sigma, sigma_next), sigma_down in zip(plan.steps(), plan.sigmas_down.tolist(), strict=True):
        denoised = denoise(x, sigma, t)
        epsilon = (x - denoised) / sigma
        if plan.clip is not None:
            denoised = np.clip(denoised, -plan.clip, plan.clip)
        x = denoised + sigma_down * epsilon
        # diffusers steps down by a fixed number of timesteps. Where the next timestep is not exactly there (trailing
        # with 30 steps, any linspace), it goes on with the same unit-variance latents: so do we, for equal pictures.
        x = x * ((sigma_next**2 + 1) / (sigma_down**2 + 1)) ** 0.5
    return x

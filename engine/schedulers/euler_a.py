"""Euler a."""

from lorablend.engine.schedulers.plans import Array, Denoise, Noise, Plan

__all__ = ["sample_euler_a"]


def sample_euler_a(denoise: Denoise, x: Array, plan: Plan, noise: Noise) -> Array:
    """Ancestral sampling: an Euler step to sigma_down, then fresh noise up to the next sigma.

    k-diffusion's `sample_euler_ancestral` (eta 1); the two parts have the variances of DDPM's posterior,
    arXiv:2006.11239, equation 7.
    """
    for t, sigma, sigma_next in plan.steps():
        sigma_up = sigma_next * (1 - (sigma_next / sigma) ** 2) ** 0.5
        sigma_down = sigma_next**2 / sigma
        denoised = denoise(x, sigma, t)
        x = denoised + (sigma_down / sigma) * (x - denoised)
        if sigma_up > 0:
            x = x + sigma_up * noise()
    return x

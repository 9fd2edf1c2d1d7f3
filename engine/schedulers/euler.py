"""Euler."""

from lorablend.engine.schedulers.plans import Array, Denoise, Noise, Plan

__all__ = ["sample_euler"]


def sample_euler(denoise: Denoise, x: Array, plan: Plan, noise: Noise) -> Array:
    """Algorithm 2 of arXiv:2206.00364 with Euler steps and no churn; draws no noise.

    x + slope * (sigma_next - sigma), slope = (x - denoised) / sigma, in the form that stays exact at a large sigma.
    """
    for t, sigma, sigma_next in plan.steps():
        denoised = denoise(x, sigma, t)
        x = denoised + (sigma_next / sigma) * (x - denoised)
    return x

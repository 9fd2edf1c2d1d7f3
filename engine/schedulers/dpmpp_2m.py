"""DPM++ 2M."""

from math import log

from lorablend.engine.schedulers.plans import Array, Denoise, Noise, Plan

__all__ = ["extrapolate", "sample_dpmpp_2m"]


def sample_dpmpp_2m(denoise: Denoise, x: Array, plan: Plan, noise: Noise) -> Array:
    """DPM-Solver++(2M), arXiv:2211.01095, algorithm 2, midpoint; draws no noise."""
    denoised_before, sigma_before = None, 0.0
    for i, (t, sigma, sigma_next) in enumerate(plan.steps()):
        denoised = denoise(x, sigma, t)
        target = denoised
        if denoised_before is not None and not (plan.first_order_end and i == len(plan) - 1):
            target = extrapolate(denoised, denoised_before, sigma_before, sigma, sigma_next)
        ratio = sigma_next / sigma
        x = ratio * x + (1 - ratio) * target
        denoised_before, sigma_before = denoised, sigma
    return x


def extrapolate(denoised: Array, before: Array, sigma_before: float, sigma: float, sigma_next: float) -> Array:
    """The denoised picture expected halfway to sigma_next, from the line (in log sigma) through the last two."""
    r = log(sigma_before / sigma) / log(sigma / sigma_next)
    return denoised + (denoised - before) / (2 * r)

"""Run a plan."""

from lorablend.engine.schedulers.catalogue import SCHEDULERS
from lorablend.engine.schedulers.plans import Array, Callback, Denoise, Noise, Plan

__all__ = ["sample"]


def sample(plan: Plan, denoise: Denoise, x: Array, noise: Noise, callback: Callback | None = None) -> Array:
    """Denoise x along the plan.

    Args:
        plan: The noise levels, from `plan()`.
        denoise: `denoise(x, sigma, t) -> x0`, see `denoiser`; called once per step.
        x: The start, float32, any shape: plan.init_sigma * noise, or x0 + plan.sigmas[0] * noise.
        noise: Called once for each step that adds noise, in order: those of euler_a, dpmpp_2m_sde, lcm and tcd.
        callback: Called after each step's denoising; an exception from it ends the run.

    Returns:
        The latents x0 in x's shape, scaled as diffusers scales them.
    """
    index = 0

    def report(x: Array, sigma: float, t: float) -> Array:
        nonlocal index
        denoised = denoise(x, sigma, t)
        if callback is not None:
            callback(index, sigma, x, denoised)
        index += 1
        return denoised

    info = SCHEDULERS[plan.name]
    x = info.sampler(report, x, plan, noise)
    # If a run ends above sigma 0, diffusers returns latents as its scheduler works on them: of unit variance, except
    # in the Euler family.
    return x if info.family == "euler" else x / (float(plan.sigmas[-1]) ** 2 + 1) ** 0.5

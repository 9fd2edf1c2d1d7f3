"""Run a plan."""

from lorablend.engine.schedulers.catalogue import SCHEDULERS
from lorablend.engine.schedulers.plans import Array, Callback, Denoise, Noise, Plan

__all__ = ["sample"]


def sample(plan: Plan, denoise: Denoise, x: Array, noise: Noise, callback: Callback | None = None) -> Array:
    """Denoise x along the plan.

    Args:
        denoise: `denoise(x, sigma, t) -> x0`, see `denoiser`; called once per step.
        x: Where to start, float32, any shape: plan.init_sigma * noise, or x0 + plan.sigmas[0] * noise.
        noise: Called once for each step that adds noise, in their order; only euler_a, dpmpp_2m_sde, lcm and tcd do.
        callback: Called after each denoising; what it raises ends the run.

    Returns:
        The latents x0, as diffusers scales them.
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
    # Ended above sigma 0, diffusers leaves latents as its scheduler works on them: of unit variance, but for Euler's.
    return x if info.family == "euler" else x / (float(plan.sigmas[-1]) ** 2 + 1) ** 0.5

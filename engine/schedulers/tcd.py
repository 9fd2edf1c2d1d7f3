"""TCD."""

from lorablend.engine.schedulers.plans import Array, Denoise, Noise, Plan

__all__ = ["sample_tcd"]


def sample_tcd(denoise: Denoise, x: Array, plan: Plan, noise: Noise) -> Array:
    """Trajectory consistency distillation, arXiv:2402.19159, algorithm 4, strategic stochastic sampling.

    Each step follows the trajectory down to sigmas_down, then adds fresh noise up to the next sigma.
    """
    for (t, sigma, sigma_next), sigma_down in zip(plan.steps(), plan.sigmas_down.tolist(), strict=True):
        denoised = denoise(x, sigma, t)
        x = denoised + (sigma_down / sigma) * (x - denoised)
        if sigma_next > sigma_down:
            x = x + (sigma_next**2 - sigma_down**2) ** 0.5 * noise()
    return x

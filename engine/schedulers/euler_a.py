"""Euler a."""

from lorablend.engine.schedulers.plans import Array, Denoise, Noise, Plan
from lorablend.engine.schedulers.scheduler_info import SchedulerInfo

__all__ = ["EULER_A"]


def _sample(denoise: Denoise, x: Array, plan: Plan, noise: Noise) -> Array:
    """Ancestral sampling: an Euler step to sigma_down, then new noise up to the next sigma.

    k-diffusion's `sample_euler_ancestral` with eta 1; the two parts have the variances of DDPM's posterior,
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


EULER_A = SchedulerInfo(
    label="Euler a",
    aliases=("k_euler_a", "k_euler_ancestral", "euler_ancestral"),
    diffusers_class="EulerAncestralDiscreteScheduler",
    sampler=_sample,
    family="euler",
    default_spacing="linspace",
    ends_at_zero=lambda _: True,  # diffusers' class has no final_sigmas_type
)

"""Euler."""

from lorablend.engine.schedulers.plans import Array, Denoise, Noise, Plan
from lorablend.engine.schedulers.scheduler_info import SchedulerInfo

__all__ = ["EULER"]


def _sample(denoise: Denoise, x: Array, plan: Plan, noise: Noise) -> Array:
    """Algorithm 2 of arXiv:2206.00364 with Euler steps and no churn; draws no noise.

    x + slope * (sigma_next - sigma), slope = (x - denoised) / sigma, in the form that stays exact at a large sigma.
    """
    for t, sigma, sigma_next in plan.steps():
        denoised = denoise(x, sigma, t)
        x = denoised + (sigma_next / sigma) * (x - denoised)
    return x


EULER = SchedulerInfo(
    label="Euler",
    aliases=("k_euler",),
    diffusers_class="EulerDiscreteScheduler",
    sampler=_sample,
    family="euler",
    default_spacing="linspace",
)

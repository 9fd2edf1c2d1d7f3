"""DPM++ 2M."""

from math import log

from lorablend.engine.schedulers.noise_schedule import NoiseSchedule
from lorablend.engine.schedulers.plans import Array, Denoise, Levels, Noise, Plan
from lorablend.engine.schedulers.scheduler_info import SchedulerInfo

__all__ = ["DPMPP_2M", "ends_flat", "extrapolate", "first_order_end"]

# In shorter runs, `lower_order_final` makes the last step a first-order one.
_FEW_STEPS = 15


def _sample(denoise: Denoise, x: Array, plan: Plan, noise: Noise) -> Array:
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


def ends_flat(levels: Levels) -> bool:
    """Whether sigma drops to 0 in the last step, or does not fall at all: no line in log sigma leads there."""
    return levels.end == 0 or levels.end >= float(levels.sigmas[-1])


def first_order_end(levels: Levels, schedule: NoiseSchedule) -> bool:
    """As diffusers' DPMSolverMultistepScheduler decides it."""
    few = len(levels.sigmas) < _FEW_STEPS
    return ends_flat(levels) or schedule.euler_at_final or (schedule.lower_order_final and few)


DPMPP_2M = SchedulerInfo(
    label="DPM++ 2M",
    aliases=("k_dpmpp_2m",),
    diffusers_class="DPMSolverMultistepScheduler",
    sampler=_sample,
    family="multistep",
    default_spacing="linspace",
    first_order_end=first_order_end,
)

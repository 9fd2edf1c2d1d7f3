"""UniPC."""

from math import expm1, log

from lorablend.engine.schedulers.dpmpp_2m import ends_flat, extrapolate
from lorablend.engine.schedulers.noise_schedule import NoiseSchedule
from lorablend.engine.schedulers.plans import Array, Denoise, Levels, Noise, Plan
from lorablend.engine.schedulers.scheduler_info import SchedulerInfo

__all__ = ["UNIPC"]


def _sample(denoise: Denoise, x: Array, plan: Plan, noise: Noise) -> Array:
    """UniPC-2, arXiv:2302.04867, algorithms 1 and 2: data prediction, B(h) = e^h - 1; draws no noise.

    The corrector costs no call of the model: it redoes the last step with the model's answer at its end. The predictor
    of order 2 is that of DPM-Solver++(2M).
    """
    start = x
    before: list[tuple[Array, float]] = []  # (denoised, sigma) of the last two steps, or of the first alone
    for i, (t, sigma, sigma_next) in enumerate(plan.steps()):
        denoised = denoise(x, sigma, t)
        if before:
            x = _correct(start, before, denoised, sigma)
        start = x
        target = denoised
        if before and not (plan.first_order_end and i == len(plan) - 1):
            target = extrapolate(denoised, *before[-1], sigma, sigma_next)
        ratio = sigma_next / sigma
        x = ratio * x + (1 - ratio) * target
        before = [*before[-1:], (denoised, sigma)]
    return x


def _correct(start: Array, before: list[tuple[Array, float]], denoised: Array, sigma: float) -> Array:
    """Redo the step from `start` to sigma, where the model answered `denoised`: UniC, of order 1 or 2."""
    denoised_0, sigma_0 = before[-1]
    h = log(sigma_0 / sigma)
    phi = expm1(-h)
    weight, bend = 0.5, 0.0
    if len(before) == 2:
        # Equation 9: sum of rho_k r_k^(n-1) = b_n for n = 1, 2, with r = (r_1, 1).
        denoised_1, sigma_1 = before[0]
        r_1 = log(sigma_0 / sigma_1) / h
        b_1 = (-phi / h - 1) / phi
        b_2 = 2 * ((phi / h + 1) / h - 0.5) / phi
        rho_1 = (b_1 - b_2) / (1 - r_1)
        weight = b_1 - rho_1
        bend = rho_1 / r_1 * (denoised_1 - denoised_0)
    return sigma / sigma_0 * start - phi * (denoised_0 + weight * (denoised - denoised_0) + bend)


def _first_order_end(levels: Levels, schedule: NoiseSchedule) -> bool:
    """As diffusers' UniPCMultistepScheduler decides it."""
    return ends_flat(levels) or schedule.lower_order_final


UNIPC = SchedulerInfo(
    label="UniPC",
    aliases=("k_unipc", "uni_pc"),
    diffusers_class="UniPCMultistepScheduler",
    sampler=_sample,
    family="multistep",
    default_spacing="linspace",
    first_order_end=_first_order_end,
)

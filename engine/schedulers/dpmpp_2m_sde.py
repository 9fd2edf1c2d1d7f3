"""DPM++ 2M SDE."""

from lorablend.engine.schedulers.dpmpp_2m import extrapolate, first_order_end
from lorablend.engine.schedulers.plans import Array, Denoise, Noise, Plan
from lorablend.engine.schedulers.scheduler_info import SchedulerInfo

__all__ = ["DPMPP_2M_SDE"]


def _sample(denoise: Denoise, x: Array, plan: Plan, noise: Noise) -> Array:
    """SDE-DPM-Solver++(2M), arXiv:2211.01095, section 6 (eta 1), midpoint, with independent noise in each step."""
    denoised_before, sigma_before = None, 0.0
    for i, (t, sigma, sigma_next) in enumerate(plan.steps()):
        denoised = denoise(x, sigma, t)
        target = denoised
        if denoised_before is not None and not (plan.first_order_end and i == len(plan) - 1):
            target = extrapolate(denoised, denoised_before, sigma_before, sigma, sigma_next)
        ratio = (sigma_next / sigma) ** 2
        x = ratio * x + (1 - ratio) * target
        sigma_up = sigma_next * (1 - ratio) ** 0.5
        if sigma_up > 0:
            x = x + sigma_up * noise()
        denoised_before, sigma_before = denoised, sigma
    return x


DPMPP_2M_SDE = SchedulerInfo(
    label="DPM++ 2M SDE",
    aliases=("k_dpmpp_2m_sde", "dpmpp_2m_sde_gpu"),
    diffusers_class=None,  # DPMSolverMultistepScheduler with another `algorithm_type`, see `from_diffusers_class`
    sampler=_sample,
    family="multistep",
    default_spacing="linspace",
    first_order_end=first_order_end,
)

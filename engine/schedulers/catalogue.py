"""The schedulers there are, and which of them stands for a diffusers class."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from lorablend.adapters.errors import ModelError
from lorablend.engine.schedulers.ddim import sample_ddim
from lorablend.engine.schedulers.dpmpp_2m import sample_dpmpp_2m
from lorablend.engine.schedulers.dpmpp_2m_sde import sample_dpmpp_2m_sde
from lorablend.engine.schedulers.euler import sample_euler
from lorablend.engine.schedulers.euler_a import sample_euler_a
from lorablend.engine.schedulers.lcm import sample_lcm
from lorablend.engine.schedulers.plans import Array, Denoise, Noise, Plan
from lorablend.engine.schedulers.spacing import SPACINGS, TIMESTEP_SPACINGS
from lorablend.engine.schedulers.tcd import sample_tcd
from lorablend.engine.schedulers.unipc import sample_unipc

__all__ = ["SCHEDULERS", "SchedulerInfo", "from_diffusers_class"]

Sampler: TypeAlias = Callable[[Denoise, Array, Plan, Noise], Array]
Family: TypeAlias = Literal["euler", "multistep", "ddim", "distilled"]

_SPACINGS: dict[Family, tuple[str, ...]] = {
    "euler": SPACINGS,
    "multistep": SPACINGS,
    "ddim": TIMESTEP_SPACINGS,
    "distilled": ("trailing",),
}


@dataclass(frozen=True)
class SchedulerInfo:
    """One scheduler.

    Attributes:
        label: The name that people and other programs' metadata use, which is A1111's.
        aliases: Other names that A1111 takes for it.
        sampler: The function that runs it.
        family: How diffusers lays out its timesteps, see `plan()`.
        default_spacing: What it uses where neither the caller nor the model's config says.
    """

    label: str
    aliases: tuple[str, ...]
    sampler: Sampler
    family: Family
    default_spacing: str

    @property
    def spacings(self) -> tuple[str, ...]:
        """Those of `SPACINGS` that it takes."""
        return _SPACINGS[self.family]


SCHEDULERS: Mapping[str, SchedulerInfo] = MappingProxyType(
    {
        "euler": SchedulerInfo("Euler", ("k_euler",), sample_euler, "euler", "linspace"),
        "euler_a": SchedulerInfo("Euler a", ("k_euler_a", "k_euler_ancestral"), sample_euler_a, "euler", "linspace"),
        "dpmpp_2m": SchedulerInfo("DPM++ 2M", ("k_dpmpp_2m",), sample_dpmpp_2m, "multistep", "linspace"),
        "dpmpp_2m_sde": SchedulerInfo(
            "DPM++ 2M SDE", ("k_dpmpp_2m_sde",), sample_dpmpp_2m_sde, "multistep", "linspace"
        ),
        "unipc": SchedulerInfo("UniPC", ("k_unipc",), sample_unipc, "multistep", "linspace"),
        "ddim": SchedulerInfo("DDIM", ("k_ddim",), sample_ddim, "ddim", "leading"),
        "lcm": SchedulerInfo("LCM", ("k_lcm",), sample_lcm, "distilled", "trailing"),
        "tcd": SchedulerInfo("TCD", ("k_tcd",), sample_tcd, "distilled", "trailing"),
    }
)

_FROM_DIFFUSERS = {
    "DDIMScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "EulerDiscreteScheduler": "euler",
    "LCMScheduler": "lcm",
    "TCDScheduler": "tcd",
    "UniPCMultistepScheduler": "unipc",
    # Not built; the nearest of its kind stands in. Deterministic solvers follow the same ODE to the same picture, so a
    # second-order one serves for all. The others add noise, which makes every sampler's picture another one anyway.
    "DEISMultistepScheduler": "dpmpp_2m",
    "DPMSolverSinglestepScheduler": "dpmpp_2m",
    "HeunDiscreteScheduler": "dpmpp_2m",
    "KDPM2DiscreteScheduler": "dpmpp_2m",
    "LMSDiscreteScheduler": "dpmpp_2m",
    "PNDMScheduler": "dpmpp_2m",
    "DDPMScheduler": "euler_a",
    "KDPM2AncestralDiscreteScheduler": "euler_a",
    "DPMSolverSDEScheduler": "dpmpp_2m_sde",
}


def from_diffusers_class(class_name: str, config: Mapping[str, Any] = MappingProxyType({})) -> str:
    """Our scheduler for a diffusers class, which is the nearest one where that class is not built here.

    Args:
        class_name: `_class_name` of a scheduler_config.json.
        config: The rest of it, for `algorithm_type`. `solver_order`, `solver_type`, `predict_x0` and
            `disable_corrector` are not followed: the order is always 2.

    Raises:
        ModelError: the class is for another kind of model (flow matching, EDM) or unknown.
    """
    if class_name not in _FROM_DIFFUSERS:
        raise ModelError(f'scheduler class "{class_name}" is not supported: choose one of {", ".join(SCHEDULERS)}')
    if class_name == "DPMSolverMultistepScheduler" and str(config.get("algorithm_type")).startswith("sde-"):
        return "dpmpp_2m_sde"
    return _FROM_DIFFUSERS[class_name]

"""All schedulers, and which of them stands for a diffusers class."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lorablend.adapters.errors import ModelError
from lorablend.engine.schedulers.ddim import DDIM
from lorablend.engine.schedulers.dpmpp_2m import DPMPP_2M
from lorablend.engine.schedulers.dpmpp_2m_sde import DPMPP_2M_SDE
from lorablend.engine.schedulers.euler import EULER
from lorablend.engine.schedulers.euler_a import EULER_A
from lorablend.engine.schedulers.lcm import LCM
from lorablend.engine.schedulers.scheduler_info import SchedulerInfo
from lorablend.engine.schedulers.tcd import TCD
from lorablend.engine.schedulers.unipc import UNIPC

__all__ = ["SCHEDULERS", "from_diffusers_class"]

SCHEDULERS: Mapping[str, SchedulerInfo] = MappingProxyType(
    {
        "euler": EULER,
        "euler_a": EULER_A,
        "dpmpp_2m": DPMPP_2M,
        "dpmpp_2m_sde": DPMPP_2M_SDE,
        "unipc": UNIPC,
        "ddim": DDIM,
        "lcm": LCM,
        "tcd": TCD,
    }
)
"""Every scheduler by the name that requests give it."""

# Classes that are not built here, with the nearest scheduler of their kind. Deterministic solvers follow the same ODE
# to the same picture, so a second-order one serves for all. The others add noise, so that each draws a picture of its
# own anyway.
_STAND_INS = {
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
_FROM_DIFFUSERS = {
    **{info.diffusers_class: name for name, info in SCHEDULERS.items() if info.diffusers_class is not None},
    **_STAND_INS,
}


def from_diffusers_class(class_name: str, config: Mapping[str, Any] = MappingProxyType({})) -> str:
    """The scheduler for a diffusers class; if that class is not built here, the nearest one.

    Args:
        class_name: `_class_name` of a scheduler_config.json.
        config: The rest of it, for `algorithm_type`. `solver_order`, `solver_type`, `predict_x0` and
            `disable_corrector` are not followed: the order is always 2.

    Returns:
        A key of `SCHEDULERS`.

    Raises:
        ModelError: the class is for another kind of model (flow matching, EDM), or is unknown.
    """
    if class_name not in _FROM_DIFFUSERS:
        raise ModelError(f'scheduler class "{class_name}" is not supported: choose one of {", ".join(SCHEDULERS)}')
    if class_name == "DPMSolverMultistepScheduler" and str(config.get("algorithm_type")).startswith("sde-"):
        return "dpmpp_2m_sde"
    return _FROM_DIFFUSERS[class_name]

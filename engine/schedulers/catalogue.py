"""All schedulers, and which of them stands for a diffusers class."""

import json
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

__all__ = ["SCHEDULERS", "from_diffusers_class", "not_followed"]

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
    "DDIMParallelScheduler": "ddim",
    "DEISMultistepScheduler": "dpmpp_2m",
    "DPMSolverSinglestepScheduler": "dpmpp_2m",
    "HeunDiscreteScheduler": "dpmpp_2m",
    "KDPM2DiscreteScheduler": "dpmpp_2m",
    "LMSDiscreteScheduler": "dpmpp_2m",
    "PNDMScheduler": "dpmpp_2m",
    "DDPMParallelScheduler": "euler_a",
    "DDPMScheduler": "euler_a",
    "KDPM2AncestralDiscreteScheduler": "euler_a",
    "DPMSolverSDEScheduler": "dpmpp_2m_sde",
    "SASolverScheduler": "dpmpp_2m_sde",
}
_FROM_DIFFUSERS = {
    **{info.diffusers_class: name for name, info in SCHEDULERS.items() if info.diffusers_class is not None},
    **_STAND_INS,
}


def from_diffusers_class(class_name: str, config: Mapping[str, Any] = MappingProxyType({})) -> str:
    """The scheduler for a diffusers class; if that class is not built here, the nearest one.

    Args:
        class_name: `_class_name` of a scheduler_config.json.
        config: The rest of it, for `algorithm_type`; see `not_followed` for the solver's other settings.

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


# What the solvers here do, in the settings of their own classes; diffusers takes the further values for the first one.
_DPMPP_2M = {"solver_order": (2,), "solver_type": ("midpoint", "logrho", "bh1", "bh2")}
_SOLVERS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "DPMSolverMultistepScheduler": {"algorithm_type": ("dpmsolver++", "sde-dpmsolver++"), **_DPMPP_2M},
    "UniPCMultistepScheduler": {
        "solver_order": (2,),
        "solver_type": ("bh2", "midpoint", "heun", "logrho"),
        "predict_x0": (True,),
        "disable_corrector": ([],),
    },
    "DDPMScheduler": {"clip_sample": (False,)},
    "DDPMParallelScheduler": {"clip_sample": (False,)},
    "HeunDiscreteScheduler": {"clip_sample": (False,)},
}


def not_followed(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Warnings about settings of a scheduler_config.json that its class acts on, and the scheduler here does not."""
    name = str(config.get("_class_name"))
    values = {key: config[key] for key in _SOLVERS.get(name, ()) if config.get(key) is not None}
    stands_for = from_diffusers_class(name, config) if values else ""
    return tuple(
        f"the model's scheduler has {key} {json.dumps(value)}, which {stands_for} does not follow"
        for key, value in values.items()
        if value not in _SOLVERS[name][key]
    )

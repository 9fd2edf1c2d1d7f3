"""The scheduler_config.json of a folder for OpenVINO GenAI: the model's own if GenAI does what it says, else another.

GenAI 2026.4 opens five of diffusers' classes. It refuses some of their settings, the last of them only while it draws,
and takes no notice of others; where a setting is missing, its defaults are not always those of diffusers.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from lorablend.adapters.errors import ModelError
from lorablend.engine.schedulers import SCHEDULERS, NoiseSchedule, beta_settings, from_diffusers_class
from lorablend.engine.schedulers.spacing import TIMESTEP_SPACINGS

__all__ = ["GENAI_CLASSES", "genai_scheduler", "genai_settings", "has_extra_step"]

GENAI_CLASSES = MappingProxyType(
    {
        "euler": "EulerDiscreteScheduler",
        "euler_a": "EulerAncestralDiscreteScheduler",
        "ddim": "DDIMScheduler",
        "lcm": "LCMScheduler",
        "pndm": "PNDMScheduler",
    }
)
"""The classes that GenAI has, by our name; pndm is only GenAI's."""

# What each of them reads, with GenAI's value where the file has none (its src/cpp/src/image_generation/schedulers).
_COMMON = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "steps_offset": 0,
    "timestep_spacing": "leading",
}
_DISTILLED = {"original_inference_steps": 50, "clip_sample": False, "clip_sample_range": 1.0}
_READ: Mapping[str, Mapping[str, Any]] = {
    "euler": {
        **_COMMON,
        "final_sigmas_type": "zero",
        **dict.fromkeys(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"), False),
    },
    "euler_a": {**_COMMON, "beta_schedule": "linear"},
    "ddim": {**_COMMON, "clip_sample": True, "set_alpha_to_one": True},
    "lcm": {**_COMMON, "beta_start": 0.00085, "beta_end": 0.012, **_DISTILLED},
    "pndm": {**_COMMON, "beta_schedule": "linear", "set_alpha_to_one": False, "skip_prk_steps": False},
}
_COMMON_STEPS = 50  # numbers of steps that are worth a warning
# GenAI does not read these, so that a value of the model's own does no harm: a distilled scheduler has one spacing.
_NOT_READ = {"lcm": ("timestep_spacing", "steps_offset"), "pndm": ("rescale_betas_zero_snr",)}


def genai_settings(name: str, config: Mapping[str, Any], spacing: str) -> dict[str, Any]:
    """All that GenAI reads for a scheduler, as the model's config has it, with diffusers' betas written out."""
    schedule = NoiseSchedule.from_config(config)
    rescaled = bool(config.get("rescale_betas_zero_snr"))  # GenAI does that itself
    alphas = NoiseSchedule.from_config({**config, "rescale_betas_zero_snr": False}).alphas_cumprod.astype(np.float64)
    known = {
        **beta_settings(config),
        "beta_schedule": "linear",  # ignored when trained_betas is given
        "trained_betas": [float(beta) for beta in 1 - alphas / np.append(1, alphas[:-1])],
        "prediction_type": schedule.prediction_type,
        "rescale_betas_zero_snr": rescaled,
        "steps_offset": schedule.steps_offset,
        "timestep_spacing": spacing,
        "final_sigmas_type": "zero" if schedule.ends_at_zero else "sigma_min",
        "clip_sample": schedule.clip is not None,
        "clip_sample_range": schedule.clip or 1.0,
        "set_alpha_to_one": schedule.ddim_ends_at_zero,
        "skip_prk_steps": True,
        "original_inference_steps": schedule.original_inference_steps,
    }
    return {"_class_name": GENAI_CLASSES[name], **{key: known.get(key, False) for key in _READ[name]}}


def has_extra_step(steps: int, train_steps: int) -> bool:
    """Whether GenAI takes a step too many in trailing spacing, at timestep -1, which spoils the picture.

    It subtracts train_steps / steps in single precision as long as more than 0 is left.
    """
    stride, left = np.float32(train_steps) / np.float32(steps), np.float32(train_steps)
    for _ in range(steps):
        left = np.float32(left - stride)
    return bool(left > 0)


def genai_scheduler(config: Mapping[str, Any]) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """What a folder for GenAI needs in place of a model's scheduler_config.json.

    Returns:
        The new settings, None if GenAI follows the model's own; and sentences about where GenAI's pictures are not
        those of the live runtime.

    Raises:
        ModelError: a setting is not supported, see `NoiseSchedule.from_config`.
    """
    schedule = NoiseSchedule.from_config(config)
    own = str(config.get("_class_name") or "scheduler without _class_name")
    live = _live(own, config)
    name = _name(own, live, schedule, bool(config.get("rescale_betas_zero_snr")))
    said: list[str] = []
    if GENAI_CLASSES[name] != own:
        lacks = f"has no {own}"
        if own in GENAI_CLASSES.values():
            rescaled = " and rescale_betas_zero_snr" if config.get("rescale_betas_zero_snr") else ""
            lacks = f"cannot run {own} with prediction_type {schedule.prediction_type}{rescaled}"
        effect = "as in the live runtime" if name == live != "euler" else _EFFECTS[live]
        said.append(f"OpenVINO GenAI {lacks}: {GENAI_CLASSES[name]} takes its place, {effect}")
    elif name == "pndm":
        said.append("OpenVINO GenAI draws with the model's own PNDMScheduler, the live runtime with dpmpp_2m")
    spacing = _spacing(name, live, config, schedule)
    wanted = genai_settings(name, config, spacing)
    if schedule.sigma_spacing is not None and name != "lcm" and "karras" in SCHEDULERS[live].spacings:
        said.append(f"OpenVINO GenAI has no {schedule.sigma_spacing} spacing: {spacing} takes its place")
    if name == "ddim" and wanted["clip_sample"]:
        wanted["clip_sample"] = False
        said.append("OpenVINO GenAI cannot clip the latents, which the model's scheduler does (clip_sample)")
    if name != "lcm" and spacing == "trailing":
        count = wanted["num_train_timesteps"]
        spoilt = ", ".join(str(steps) for steps in range(1, _COMMON_STEPS + 1) if has_extra_step(steps, count))
        said.append(f"OpenVINO GenAI spoils pictures in trailing spacing with {spoilt} and some more steps")
    if name == "euler" and not schedule.ends_at_zero:
        said.append("OpenVINO GenAI ends without noise, whatever final_sigmas_type is")
    if GENAI_CLASSES[name] == own and _follows(name, config, wanted):
        return None, tuple(said)
    return wanted, tuple(said)


# What it means for the pictures that GenAI's nearest class takes the place of one of ours.
_SAME_ODE = "which needs more steps for the same picture"
_EFFECTS = {
    "euler": "which may draw other pictures",  # in place of a class that nobody knows, see `_live`
    "euler_a": "which adds no noise",
    "dpmpp_2m": _SAME_ODE,
    "dpmpp_2m_sde": "which draws another picture from the same seed",
    "unipc": _SAME_ODE,
    "ddim": "which ends in nearly the same picture",
    "lcm": "which adds no noise",
    "tcd": "which adds no noise",
}


def _live(own: str, config: Mapping[str, Any]) -> str:
    try:
        return from_diffusers_class(own, config)
    except ModelError:  # of a class that nobody knows: the folder can be opened, and a scheduler chosen then
        return "euler"


def _name(own: str, live: str, schedule: NoiseSchedule, rescaled: bool) -> str:
    """The nearest of GenAI's schedulers."""
    if own == "PNDMScheduler" and schedule.prediction_type != "sample" and not rescaled:
        return "pndm"
    if live == "lcm" and schedule.prediction_type == "epsilon" and not rescaled:  # GenAI's has no other
        return "lcm"
    if live in ("euler_a", "dpmpp_2m_sde"):
        return "euler" if schedule.prediction_type == "sample" else "euler_a"
    if live == "ddim" and not (rescaled and schedule.prediction_type == "epsilon"):  # it divides by 0: black pictures
        return "ddim"
    return "euler"


def _spacing(name: str, live: str, config: Mapping[str, Any], schedule: NoiseSchedule) -> str:
    """The spacing of the model's own timesteps."""
    info = SCHEDULERS[live]
    if info.family == "distilled":
        return "trailing"
    default = "leading" if config.get("_class_name") == "PNDMScheduler" and name == "pndm" else info.default_spacing
    own = schedule.timestep_spacing or default
    return own if own in TIMESTEP_SPACINGS else default


def _follows(name: str, config: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether GenAI draws with the model's own file as with the settings that are wanted."""
    betas = beta_settings(config)
    if config.get("trained_betas") is None and betas["beta_schedule"] not in ("linear", "scaled_linear"):
        return False
    wanted = {**wanted, **betas, "trained_betas": config.get("trained_betas")}
    if wanted["trained_betas"] is not None:
        wanted["beta_schedule"] = config.get("beta_schedule")  # it must only be one that GenAI knows
    read = {key: default for key, default in _READ[name].items() if key not in _NOT_READ.get(name, ())}
    return all((default if config.get(key) is None else config[key]) == wanted[key] for key, default in read.items())

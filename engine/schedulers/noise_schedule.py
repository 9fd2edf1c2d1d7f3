"""The noise that a model was trained with at each timestep, and the other settings of its scheduler_config.json."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lorablend.adapters.errors import ModelError

__all__ = ["NoiseSchedule", "beta_settings"]

# Settings with one supported value; any other value would silently give different pictures.
_FIXED: dict[str, Any] = {
    "interpolation_type": "linear",
    "lambda_min_clipped": -math.inf,
    "shift_terminal": None,
    "snr_shift_scale": None,
    "thresholding": False,
    "timestep_scaling": 10.0,
    "timestep_type": "discrete",
    "use_dynamic_shifting": False,
    "use_flow_sigmas": False,
}

_CHOICES = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}

# The classes whose betas are known where a config leaves them out.
_WITH_BETAS = (
    *("DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSDE"),
    *("DPMSolverSinglestep", "EulerAncestralDiscrete", "EulerDiscrete", "HeunDiscrete", "KDPM2AncestralDiscrete"),
    *("KDPM2Discrete", "LCM", "LMSDiscrete", "PNDM", "SASolver", "TCD", "UniPCMultistep"),
)
# Those of them whose defaults are the betas of Stable Diffusion, and the ones that take the square root too.
_LATENT_BETAS = ("DPMSolverSDE", "HeunDiscrete", "KDPM2AncestralDiscrete", "KDPM2Discrete", "LCM", "TCD")
_ROOT_BETAS = ("LCM", "TCD")

_SIGMA_SPACINGS = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
    "use_lu_lambdas": "lu",
}


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A scheduler_config.json, checked.

    Attributes:
        alphas_cumprod: The share of the signal's variance that is left at each training timestep, float32 [T], falling;
            exactly 0 at the end of a zero-SNR schedule.
        prediction_type: What the UNet predicts: "epsilon", "v_prediction" or "sample".
        timestep_spacing: "leading", "trailing", "linspace", or None if the config does not say.
        sigma_spacing: "karras" or "exponential" if the config sets it. diffusers' "beta" and "lu" are kept here too,
            so that they can be refused when a run would use them.
        sigma_min: The lower end of the karras and exponential spacings; None is the schedule's own.
        sigma_max: Their upper end.
        steps_offset: Added to the timesteps of the leading spacing.
        ends_at_zero: The last sigma is 0, not that of timestep 0 (`final_sigmas_type`; for euler and multistep).
        ddim_ends_at_zero: The same for ddim (`set_alpha_to_one`).
        lower_order_final: A multistep solver takes a last step of first order; DPM++ in short runs only.
        euler_at_final: DPM++ takes a last step of first order.
        original_inference_steps: The number of steps that lcm and tcd were distilled on.
        clip: The bound of the denoised latents in ddim and lcm, or None. Nothing is clipped unless the config says so
            (diffusers' DDIMScheduler clips by default, which is right for pixels, not for latents).
    """

    alphas_cumprod: npt.NDArray[np.float32]
    prediction_type: str
    timestep_spacing: str | None
    sigma_spacing: str | None
    sigma_min: float | None
    sigma_max: float | None
    steps_offset: int
    ends_at_zero: bool
    ddim_ends_at_zero: bool
    lower_order_final: bool
    euler_at_final: bool
    original_inference_steps: int
    clip: float | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "NoiseSchedule":
        """Read the dict of a diffusers scheduler_config.json of any scheduler class.

        Raises:
            ModelError: a setting has a value that is not supported here, or the class is for another kind of model.
        """
        _check_betas(config)
        for key, value in _FIXED.items():
            if config.get(key, value) != value:
                raise ModelError(f"scheduler config: {key} is {config[key]!r}, only {value!r} is supported")
        for key, choices in _CHOICES.items():
            if config.get(key) is not None and config[key] not in choices:
                raise ModelError(f"scheduler config: {key} is {config[key]!r}, expected one of {', '.join(choices)}")
        flags = [spacing for flag, spacing in _SIGMA_SPACINGS.items() if config.get(flag)]
        return cls(
            alphas_cumprod=_alphas_cumprod(config),
            prediction_type=config.get("prediction_type") or "epsilon",
            timestep_spacing=config.get("timestep_spacing"),
            sigma_spacing=flags[0] if flags else None,
            sigma_min=config.get("sigma_min"),
            sigma_max=config.get("sigma_max"),
            steps_offset=config.get("steps_offset") or 0,
            ends_at_zero=config.get("final_sigmas_type", "zero") == "zero",
            ddim_ends_at_zero=config.get("set_alpha_to_one", True),
            lower_order_final=config.get("lower_order_final", True),
            euler_at_final=config.get("euler_at_final", False),
            original_inference_steps=config.get("original_inference_steps") or 50,
            clip=config.get("clip_sample_range", 1.0) if config.get("clip_sample", False) else None,
        )

    def sigmas(self, smallest_alpha: float) -> npt.NDArray[np.float32]:
        """The ratio of noise to signal at each training timestep, sqrt((1 - alpha) / alpha), float32 [T], rising.

        Args:
            smallest_alpha: Replaces an alphas_cumprod of 0, whose sigma would be infinite.
        """
        alphas = np.where(self.alphas_cumprod == 0, np.float32(smallest_alpha), self.alphas_cumprod)
        return np.sqrt((1 - alphas) / alphas)


def _alphas_cumprod(config: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    betas = _betas(config)
    if config.get("rescale_betas_zero_snr"):
        betas = _rescale_zero_snr(betas)
    return _cumprod(1 - betas)


def beta_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """beta_schedule, beta_start, beta_end and num_train_timesteps, in this order.

    Only configs written by hand leave any of them out; the defaults are those of the config's own class.
    """
    name = _short_name(config)
    latent = name in _LATENT_BETAS
    defaults = {
        "beta_schedule": "scaled_linear" if name in _ROOT_BETAS else "linear",
        "beta_start": 0.00085 if latent else 0.0001,
        "beta_end": 0.012 if latent else 0.02,
        "num_train_timesteps": 1000,
    }
    return {key: default if config.get(key) is None else config[key] for key, default in defaults.items()}


def _short_name(config: Mapping[str, Any]) -> str:
    return str(config.get("_class_name") or "").removesuffix("Scheduler")


def _check_betas(config: Mapping[str, Any]) -> None:
    """Refuse the config of another kind of model: with default betas, it would draw something, silently wrong."""
    name, trained = _short_name(config), config.get("trained_betas")
    told = trained is not None or any(config.get(key) is not None for key in ("beta_schedule", "beta_start"))
    if name and name not in _WITH_BETAS and not told:
        raise ModelError(
            f"scheduler config: {config['_class_name']} has no betas, so it is for another kind of model; "
            "give a Stable Diffusion or SDXL model whose scheduler has them"
        )
    count = beta_settings(config)["num_train_timesteps"]
    if trained is not None and len(trained) != count:
        raise ModelError(
            f"scheduler config: trained_betas has {len(trained)} numbers, num_train_timesteps is {count}; "
            "one of the two is wrong"
        )


def _betas(config: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """The variance added at each training timestep, float32 [T]."""
    if config.get("trained_betas") is not None:
        return np.asarray(config["trained_betas"], dtype=np.float32)
    given = beta_settings(config)
    kind, start, end, count = given.values()
    if kind == "linear":
        return _linspace(start, end, count)
    if kind == "scaled_linear":
        return _linspace(start**0.5, end**0.5, count) ** 2
    # Cosine schedule of Nichol and Dhariwal, arXiv:2102.09672, equation 17; no beta above 0.999.
    bar = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
    return np.array([min(1 - bar[i + 1] / bar[i], 0.999) for i in range(count)], dtype=np.float32)


def _linspace(start: float, end: float, count: int) -> npt.NDArray[np.float32]:
    """Evenly spaced float32 numbers, bit by bit those of torch: a float32 step, counted from the nearer end."""
    start32, end32 = np.float32(start), np.float32(end)
    step = np.float64((end32 - start32) / np.float32(count - 1))
    index = np.arange(count)
    return np.where(index < count // 2, start32 + step * index, end32 - step * index[::-1]).astype(np.float32)


def _cumprod(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The running product, accumulated in float64 as torch does."""
    return np.cumprod(values, dtype=np.float64).astype(np.float32)


def _rescale_zero_snr(betas: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Shift and scale a schedule so that no signal is left at its end (arXiv:2305.08891, algorithm 1)."""
    root = np.sqrt(_cumprod(1 - betas))
    first, last = root[0], root[-1]
    root = (root - last) * (first / (first - last))
    bar = root**2
    return 1 - np.concatenate([bar[:1], bar[1:] / bar[:-1]])

"""Settings for adapters for few steps, as their authors publish them.

A preset recognises no file and adds no adapter: it only tells how to draw with the adapter that it is named after.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lorablend.adapters.errors import RequestError
from lorablend.adapters.forms import did_you_mean
from lorablend.adapters.wording import shown

__all__ = ["PRESETS", "Preset", "find_preset"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How to draw with one adapter.

    Attributes:
        guidance_scale: 1 or less is none, so the authors' 0 and 1 are the same.
        timesteps: For authors who deviate from the scheduler's own timesteps.
        source: Where the authors publish the settings; "" for lorablend's own.
    """

    steps: int
    guidance_scale: float
    scheduler: str
    spacing: str
    source: str
    timesteps: tuple[int, ...] | None = None

    def settings(self, own: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        """Arguments of `Pipeline.generate`; those in `own` win.

        Timesteps replace steps and spacing: if `own` has timesteps, the preset's steps and spacing are left out, and if
        it has steps or a spacing, the preset's timesteps are.
        """
        settings: dict[str, Any] = {"guidance_scale": self.guidance_scale, "scheduler": self.scheduler}
        if self.timesteps is not None and not {"steps", "spacing"} & own.keys():
            settings["timesteps"] = self.timesteps
        elif "timesteps" not in own:
            settings |= {"steps": self.steps, "spacing": self.spacing}
        return {**settings, **own}


_LCM = "https://huggingface.co/latent-consistency/lcm-lora-sdxl"
_TCD = "https://huggingface.co/h1t/TCD-SDXL-LoRA"
_HYPER = "https://huggingface.co/ByteDance/Hyper-SD"
_LIGHTNING = "https://huggingface.co/ByteDance/SDXL-Lightning"
_DMD2 = "https://huggingface.co/tianweiy/DMD2"
_TURBO = "https://huggingface.co/stabilityai/sdxl-turbo"


def _preset(
    steps: int, guidance: float, scheduler: str, spacing: str, source: str, timesteps: tuple[int, ...] | None = None
) -> Preset:
    return Preset(
        steps=steps, guidance_scale=guidance, scheduler=scheduler, spacing=spacing, source=source, timesteps=timesteps
    )


# LCM: 2 to 8 steps, guidance off or 1 to 2. TCD: eta 0.3, which is our scheduler's. Hyper-SD's one-step LoRA is for
# TCD; its timestep 800 is for the one-step UNet only, and the eta of 1 has no effect in a run of one step. DMD2 was
# trained on its own timesteps: LCM's own four are 999, 759, 499, 259. Turbo is a model, for 1 to 4 steps; scheduler and
# spacing are from memory of its scheduler_config.json. Quality is lorablend's own, for SDXL without such an adapter.
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "lcm": _preset(4, 1.0, "lcm", "trailing", _LCM),
        "tcd": _preset(4, 0.0, "tcd", "trailing", _TCD),
        "hyper-1": _preset(1, 0.0, "tcd", "trailing", _HYPER),
        "hyper-2": _preset(2, 0.0, "ddim", "trailing", _HYPER),
        "hyper-4": _preset(4, 0.0, "ddim", "trailing", _HYPER),
        "hyper-8": _preset(8, 0.0, "ddim", "trailing", _HYPER),
        "lightning-2": _preset(2, 0.0, "euler", "trailing", _LIGHTNING),
        "lightning-4": _preset(4, 0.0, "euler", "trailing", _LIGHTNING),
        "lightning-8": _preset(8, 0.0, "euler", "trailing", _LIGHTNING),
        "dmd2": _preset(4, 0.0, "lcm", "trailing", _DMD2, timesteps=(999, 749, 499, 249)),
        "turbo": _preset(1, 0.0, "euler_a", "trailing", _TURBO),
        "quality": _preset(30, 6.0, "dpmpp_2m", "karras", ""),
    }
)


def find_preset(name: str) -> Preset:
    """The preset of that name. Raises RequestError, which suggests the nearest one."""
    if name not in PRESETS:
        raise RequestError(f'no preset "{shown(name)}"; {did_you_mean(name, PRESETS)}')
    return PRESETS[name]

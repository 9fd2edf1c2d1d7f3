"""Settings that adapters for few steps were made for, as their authors publish them.

No file is recognised and no adapter added: a preset only says how to draw with the adapter that its name stands for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from lorablend.adapters.errors import RequestError
from lorablend.adapters.forms import did_you_mean
from lorablend.adapters.wording import shown

__all__ = ["PRESETS", "Preset", "find_preset"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How to draw. guidance_scale: 1 or less is none, and the authors' 0 and 1 are the same.

    timesteps: what the model is to be told in each step, where the authors deviate from what the scheduler does by
    itself; None where they do not. adapter_weight: the weight that the authors' own example gives the adapter; None for
    settings that belong to no adapter. source: where all that is said, "" for our own.
    """

    steps: int
    guidance_scale: float
    scheduler: str
    spacing: str
    timesteps: tuple[int, ...] | None = None
    adapter_weight: float | None = None
    source: str

    def settings(self, own: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        """Arguments of `Pipeline.generate`; what `own` says wins.

        Timesteps are in place of steps and spacing: where `own` has some, the preset's steps and spacing go, and where
        it has steps or a spacing, the preset's timesteps.
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


def _preset(steps: int, guidance: float, scheduler: str, spacing: str, source: str) -> Preset:
    """For an adapter that its authors' example gives the weight 1."""
    return Preset(
        steps=steps, guidance_scale=guidance, scheduler=scheduler, spacing=spacing, adapter_weight=1.0, source=source
    )


# LCM: 2 to 8 steps, guidance off or 1 to 2. TCD: eta 0.3, which is our scheduler's. Hyper-SD's one-step LoRA is for
# TCD; its timestep 800 is for the one-step UNet alone, and the eta of 1 has no effect in a run of one step. DMD2 was
# trained on its own timesteps: LCM's own four are 999, 759, 499, 259. Turbo is a model, for 1 to 4 steps; scheduler and
# spacing are from memory of its scheduler_config.json. Quality is ours, for SDXL with no such adapter.
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
        "dmd2": replace(_preset(4, 0.0, "lcm", "trailing", _DMD2), timesteps=(999, 749, 499, 249)),
        "turbo": replace(_preset(1, 0.0, "euler_a", "trailing", _TURBO), adapter_weight=None),
        "quality": replace(_preset(30, 6.0, "dpmpp_2m", "karras", ""), adapter_weight=None),
    }
)


def find_preset(name: str) -> Preset:
    """The preset of that name. Raises RequestError, with the nearest one there is."""
    if name not in PRESETS:
        raise RequestError(f'no preset "{shown(name)}"; {did_you_mean(name, PRESETS)}')
    return PRESETS[name]

"""The names of modules and tensors in the files that we write: kohya's, or those of diffusers and PEFT.

Most programs read kohya's names: flat, with the original checkpoint's block names for SDXL's UNet and diffusers' block
names for the other models, as sd-scripts itself writes them. diffusers' names are dotted.
"""

from functools import cache
from typing import Literal

from lorablend.adapters.errors import AdapterError
from lorablend.adapters.names.modules import TOPOLOGIES, unet_modules

__all__ = ["NAMINGS", "Naming", "block_of", "is_convolution", "module_name"]

Naming = Literal["kohya", "diffusers"]
NAMINGS: tuple[Naming, ...] = ("kohya", "diffusers")

_CONVOLUTIONS = ("conv_in", "conv_out", "conv1", "conv2", "conv_shortcut", "conv")
_TEXT_PREFIXES = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}


def module_name(component: str, path: str, base: str, naming: Naming) -> str:
    """Return the part of a name before ".lora_down.weight" or ".lora_A.weight": "lora_unet_input_blocks_4_1_proj_in".

    `base` is `Adapter.base_model`. Raises AdapterError for a text encoder if the base model is unknown, since kohya's
    names depend on it.
    """
    if naming == "diffusers":
        return f"{component}.{path}"
    flat = path.replace(".", "_")
    if component == "unet":
        return "lora_unet_" + (_sgm_names().get(path, path).replace(".", "_") if base == "sdxl" else flat)
    if base == "sdxl":
        return _TEXT_PREFIXES[component] + flat
    if base == "unknown":
        raise AdapterError(
            "the file does not say whether it is for SD 1.5 or SDXL, and kohya's names of text encoders differ"
        )
    return f"lora_te_{flat}"


@cache
def _sgm_names() -> dict[str, str]:
    return dict(unet_modules(TOPOLOGIES["sdxl"]))


def is_convolution(path: str, base: str) -> bool:
    """Return whether programs expect this module's tensors to have the dimensions of a kernel."""
    child = path.rpartition(".")[2]
    return child in _CONVOLUTIONS or (child in ("proj_in", "proj_out") and base == "sd15")


def block_of(component: str, path: str) -> str:
    """Return the block of a module in reports: "down_blocks.1.attentions.0", "mid_block.resnets.1"…

    All of a text encoder is one block, "all".
    """
    if component != "unet":
        return "all"
    words = path.split(".")
    if words[0] in ("down_blocks", "up_blocks"):
        return ".".join(words[:4])
    return ".".join(words[:3]) if words[0] == "mid_block" else words[0]

"""A single-file checkpoint of SDXL or SD 1.x, understood from its header: family, networks, and odd tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lorablend.adapters.errors import ModelError
from lorablend.adapters.files.checkpoint import OTHER_SCALES, SCALES, from_open_clip
from lorablend.adapters.names.modules import find_module
from lorablend.adapters.wording import listed

__all__ = ["Checkpoint", "checkpoint_family", "inspect_checkpoint", "prefixes_of"]

_UNET = "model.diffusion_model."
_VAE = "first_stage_model."
# The key prefixes of each network in a single file: Stability's SGM layout for SDXL, CompVis' LDM layout for SD 1.x.
# Some programs store the second text encoder of SDXL under transformers' names.
_PREFIXES: dict[str, dict[str, tuple[str, ...]]] = {
    "SDXL": {
        "text_encoder": ("conditioner.embedders.0.transformer.",),
        "text_encoder_2": ("conditioner.embedders.1.model.", "conditioner.embedders.1.transformer."),
        "unet": (_UNET,),
        "vae": (_VAE,),
    },
    "SD 1.x": {"text_encoder": ("cond_stage_model.transformer.",), "unet": (_UNET,), "vae": (_VAE,)},
}
# Tensors without a module that change nothing here: numbers of positions, CLIP's temperature, the VAE's training loss,
# and what is only for arithmetic in 8 bits.
_IDLE = re.compile(r"(^|\.)(position_ids|logit_scale|loss\..*|scaled_fp8|scale_input|input_scale|comfy_quant)$")
_VAE_NAME = re.compile(
    r"((encoder|decoder)\.("
    r"conv_in|conv_out|norm_out|mid\.block_[12]\.(norm[12]|conv[12])|mid\.attn_1\.(norm|q|k|v|proj_out)"
    r"|(down|up)\.\d\.(block\.\d\.(norm[12]|conv[12]|nin_shortcut)|(down|up)sample\.conv)"
    r")|(post_)?quant_conv)\.(weight|bias)"
)
_FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
_SD2_WIDTH = 1024  # of the text that the UNet reads


@dataclass(frozen=True)
class Checkpoint:
    """What a header says.

    Attributes:
        family: "SDXL" or "SD 1.x".
        parameters: The number of parameters of each network.
        channels: How many the UNet takes in; more than four in inpainting models and the like.
        left_out: The names of tensors inside these networks that no module takes.
        marks: The names of tensors outside of them, some of which are settings.
        metadata: The text entries of the header.
    """

    family: str
    parameters: Mapping[str, int]
    channels: int
    left_out: tuple[str, ...]
    marks: frozenset[str]
    metadata: Mapping[str, str]


def prefixes_of(family: str, network: str) -> tuple[str, ...]:
    """Return the beginnings of the names that a network's tensors may have in a checkpoint."""
    return _PREFIXES[family][network]


def inspect_checkpoint(file: Path) -> Checkpoint:
    """Read the header.

    Raises ModelError for a file of another kind, a network that is not in it, and weights in a form we cannot read.
    """
    tensors, metadata = _header(file)
    family = _family(file, tensors)
    parameters, left_out, unreadable, inside = dict.fromkeys(_PREFIXES[family], 0), [], [], set()
    for network, prefixes in _PREFIXES[family].items():
        for name, (dtype, shape) in tensors.items():
            prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
            if prefix is None:
                continue
            inside.add(name)
            rest = name.removeprefix(prefix)
            if _IDLE.search(rest):
                continue
            if name.endswith(SCALES):
                weight = tensors.get(f"{name.rpartition('.')[0]}.weight")
                if weight is None:
                    left_out.append(name)
                elif dtype not in _FLOATS or math.prod(shape) not in (1, weight[1][0]):
                    unreadable.append(f"{name} ({dtype} {shape})")
                continue
            if OTHER_SCALES.search(name):
                unreadable.append(f"{name} ({dtype})")
            elif not _has_module(network, prefix, rest):
                left_out.append(name)
            elif dtype not in _FLOATS:
                unreadable.append(f"{name} ({dtype})")
            parameters[network] += math.prod(shape)
    missing = [f"{name} ({_PREFIXES[family][name][0]}*)" for name, count in parameters.items() if count == 0]
    if missing:
        raise ModelError(f"{file.name} lacks {', '.join(missing)}; give a full checkpoint")
    if unreadable:
        raise ModelError(
            f"{file.name} has weights in a form that is not supported: {listed(unreadable)}; give one in fp16 or fp8"
        )
    first = tensors.get(f"{_UNET}input_blocks.0.0.weight", ("", []))[1]
    channels = first[1] if len(first) == 4 else 4
    return Checkpoint(family, parameters, channels, tuple(left_out), frozenset(tensors.keys() - inside), metadata)


def checkpoint_family(file: Path) -> str:
    """Tell "SDXL" or "SD 1.x" from a single file's keys. Raises ModelError for anything else."""
    return _family(file, _header(file)[0])


def _header(file: Path) -> tuple[dict[str, tuple[str, list[int]]], dict[str, str]]:
    """Return (dtype, shape) of each tensor, and the metadata."""
    if not file.is_file():
        raise ModelError(f"{file} does not exist; give a .safetensors checkpoint")
    try:
        with safe_open(file, "numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            tensors = {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
            return tensors, opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file.name} is not a readable safetensors file: {error}; download it again") from error


def _family(file: Path, tensors: Mapping[str, tuple[str, list[int]]]) -> str:
    """Tell the family from the UNet; only if that tells nothing, from the text encoders."""

    def has(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in tensors)

    widths = {
        shape[1]
        for name, (_, shape) in tensors.items()
        if name.startswith(_UNET) and name.endswith(".attn2.to_k.weight") and len(shape) == 2
    }
    sized = has(f"{_UNET}label_emb.")  # SDXL is told the size of the picture
    if (sized and has(f"{_UNET}input_blocks.11.")) or has("conditioner.embedders.0.model."):
        raise ModelError(f"{file.name} is an SDXL refiner; give an SDXL base or SD 1.x checkpoint")
    if sized or has("conditioner.embedders.1."):
        return "SDXL"
    if has("cond_stage_model.model.") or _SD2_WIDTH in widths:
        raise ModelError(f"{file.name} is a Stable Diffusion 2 checkpoint; convert the diffusers folder of that model")
    if has(_UNET) or has("cond_stage_model.transformer."):
        return "SD 1.x"
    raise ModelError(f"{file.name} is not an SDXL or SD 1.x checkpoint: it has no {_UNET}* tensors")


def _has_module(network: str, prefix: str, name: str) -> bool:
    """Return whether a tensor of a network, without the prefix, belongs to one of its modules."""
    if network == "vae":
        return _VAE_NAME.fullmatch(name) is not None
    names = [new for new, _ in from_open_clip(name)] if prefix == "conditioner.embedders.1.model." else [name]
    modules = [each.rpartition(".")[0] for each in names if each.endswith((".weight", ".bias"))]
    return bool(modules) and all(find_module(network, module) for module in modules)

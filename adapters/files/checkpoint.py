"""The weights of a whole model: a diffusers folder, or a single checkpoint of SDXL, SD 1.x or SD 2.x."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lorablend.adapters.errors import ModelError
from lorablend.adapters.files.file import Tensor, TensorFile, read_file
from lorablend.adapters.names.modules import find_module
from lorablend.adapters.wording import shown

__all__ = ["OTHER_SCALES", "SCALES", "CheckpointFile", "CheckpointPart", "from_open_clip", "read_checkpoint"]

_COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
# What an 8-bit weight is multiplied by: ComfyUI's scaled fp8, in its older and newer form.
SCALES = (".scale_weight", ".weight_scale")
# Scales in other programs' forms, which would be needed too.
OTHER_SCALES = re.compile(r"\.(?!scale_input$|input_scale$|logit_scale$)[^.]*scale(_inv|s|_inverse)?$", re.IGNORECASE)

# (start of a tensor's name in a single checkpoint, component, whether OpenCLIP's module names follow).
_PREFIXES = (
    ("model.diffusion_model.", "unet", False),
    ("conditioner.embedders.0.transformer.", "text_encoder", False),
    ("conditioner.embedders.1.model.", "text_encoder_2", True),
    ("conditioner.embedders.1.transformer.", "text_encoder_2", False),
    ("cond_stage_model.transformer.", "text_encoder", False),
    ("cond_stage_model.model.", "text_encoder", True),
)
# OpenCLIP's names inside a layer -> transformers' names, each with the third of the rows that it takes, or None.
_OPEN_CLIP = {
    "attn.in_proj_": (("self_attn.q_proj.", 0), ("self_attn.k_proj.", 1), ("self_attn.v_proj.", 2)),
    "attn.out_proj.": (("self_attn.out_proj.", None),),
    "mlp.c_fc.": (("mlp.fc1.", None),),
    "mlp.c_proj.": (("mlp.fc2.", None),),
    "ln_1.": (("layer_norm1.", None),),
    "ln_2.": (("layer_norm2.", None),),
}
_OPEN_CLIP_LAYERS = "transformer.resblocks."
_OPEN_CLIP_ENDS = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
}


@dataclass(frozen=True)
class CheckpointPart:
    """A tensor of a checkpoint, or one third of its rows."""

    tensor: Tensor
    third: int | None = None
    transposed: bool = False
    scale: Tensor | None = None  # what the rows of an 8-bit weight are multiplied by: one number, or one each

    @property
    def shape(self) -> tuple[int, ...]:
        first, *rest = self.tensor.shape[::-1] if self.transposed else self.tensor.shape
        return (first if self.third is None else first // 3, *rest)

    def read(self) -> np.ndarray:
        """Return the values in float32."""
        values = self.tensor.float32()
        if self.scale:
            values = values * self.scale.float32().reshape(-1, *(1,) * (values.ndim - 1))
        if self.transposed:
            return np.ascontiguousarray(values.T)
        return values if self.third is None else values[len(values) // 3 * self.third :][: len(values) // 3]


@dataclass(frozen=True)
class CheckpointFile:
    """A model that is open for reading.

    Attributes:
        path: The folder or the file.
        parts: The tensors of the UNet and the text encoders, by (component, tensor name as in diffusers).
        files: The files that they are in.
    """

    path: Path
    parts: Mapping[tuple[str, str], CheckpointPart] = field(repr=False)
    files: tuple[TensorFile, ...] = field(repr=False)

    @property
    def base_model(self) -> str:
        """ "sdxl", "sd2" or "sd15"."""
        if ("unet", "add_embedding.linear_1.weight") in self.parts or any(c == "text_encoder_2" for c, _ in self.parts):
            return "sdxl"
        key = self.parts.get(("unet", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"))
        return "sd2" if key and key.shape[1] == 1024 else "sd15"


def read_checkpoint(path: Path) -> CheckpointFile:
    """Open a model; only headers are read.

    Raises ModelError if the path is not a model, AdapterError for a broken file.
    """
    if path.is_dir():
        files = {name: [read_file(file) for file in _weight_files(path / name)] for name in _COMPONENTS}
        parts = {
            (component, _with_text_model(component, tensor_name)): CheckpointPart(tensor)
            for component, shards in files.items()
            for file in shards
            for tensor_name, tensor in file.tensors.items()
        }
        opened = tuple(file for shards in files.values() for file in shards)
    elif path.is_file():
        file = read_file(path)
        parts, opened = _single(file), (file,)
    else:
        raise ModelError(f"{shown(path)} does not exist; give a diffusers folder or a .safetensors checkpoint")
    if not parts:
        raise ModelError(
            f"{shown(path)} has no weights of a UNet or a text encoder; "
            "give a diffusers folder or a .safetensors checkpoint of SDXL or SD 1.x"
        )
    return CheckpointFile(path, parts, opened)


def _weight_files(folder: Path) -> list[Path]:
    """Return the files with the weights, one or several shards; of several precisions, those of the full one."""
    files = sorted(folder.glob("*.safetensors"))
    return [file for file in files if ".fp16" not in file.name] or files


def _with_text_model(component: str, name: str) -> str:
    """Add the "text_model." that adapter files have and transformers 5 leaves out."""
    if component == "unet" or name.startswith(("text_model.", "text_projection")):
        return name
    return f"text_model.{name}"


def _single(file: TensorFile) -> dict[tuple[str, str], CheckpointPart]:
    parts: dict[tuple[str, str], CheckpointPart] = {}
    for name, tensor in file.tensors.items():
        if name.endswith(SCALES):
            continue
        if OTHER_SCALES.search(name) and name.startswith(tuple(prefix for prefix, _, _ in _PREFIXES)):
            raise ModelError(
                f"{shown(file.path.name)}: {shown(name)} is a scale in a form that is not known; "
                "give a checkpoint in fp16"
            )
        stem = name.removesuffix(".weight")
        scale = next((file.tensors[stem + end] for end in SCALES if stem + end in file.tensors), None)
        if scale and scale.count not in (1, tensor.shape[0]):
            raise ModelError(
                f"{shown(file.path.name)}: {shown(scale.name)} has shape {list(scale.shape)}; expected one number, or "
                f"one for each of the {tensor.shape[0]} rows; give a checkpoint in fp16"
            )
        for prefix, component, open_clip in _PREFIXES:
            if not name.startswith(prefix):
                continue
            inside = name.removeprefix(prefix)
            if open_clip:
                parts |= {(component, new): part for new, part in _from_open_clip(inside, tensor, scale)}
            else:
                diffusers_name = _with_text_model(component, _diffusers_name(component, inside))
                parts[component, diffusers_name] = CheckpointPart(tensor, scale=scale)
    return parts


def _diffusers_name(component: str, name: str) -> str:
    """Return a tensor's name with the module in diffusers' spelling; unchanged if the module is unknown."""
    module, dot, end = name.rpartition(".")
    path = find_module(component, module)
    return f"{path}{dot}{end}" if path else name


def from_open_clip(name: str) -> list[tuple[str, int | None]]:
    """Return transformers' names for one of OpenCLIP's tensors, each with the third of the rows that it takes, or None.

    The list is empty for a tensor that transformers does not have.
    """
    if name in _OPEN_CLIP_ENDS:
        return [(_OPEN_CLIP_ENDS[name], None)]
    number, _, inside = name.removeprefix(_OPEN_CLIP_LAYERS).partition(".")
    for start, targets in _OPEN_CLIP.items():
        if name.startswith(_OPEN_CLIP_LAYERS) and inside.startswith(start):
            layer, end = f"text_model.encoder.layers.{number}.", inside.removeprefix(start)
            return [(f"{layer}{target}{end}", third) for target, third in targets]
    return []


def _from_open_clip(name: str, tensor: Tensor, scale: Tensor | None) -> list[tuple[str, CheckpointPart]]:
    transposed = name == "text_projection"  # OpenCLIP computes x · P, transformers P · x
    names = from_open_clip(name) or [(name, None)]
    return [(new, CheckpointPart(tensor, third, transposed, scale)) for new, third in names]

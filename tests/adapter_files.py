"""Adapter files for tests, written the way each tool writes them, from the same random factors.

factors = random_factors(shapes_of(unet=unet), rank=4, alpha=2.0)
write_kohya(path, factors, naming="sgm", dtype="BF16")
write_peft(path, factors)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import pytest

from lorablend.adapters.names.modules import TOPOLOGIES, unet_modules

if TYPE_CHECKING:
    import torch

_T = TypeVar("_T")
Module = tuple[str, str]  # (component, module path)
Shape = tuple[int, ...]  # of the module's weight: [out, in] or [out, in, 1, 1]
# (the format's dtype, the values; bfloat16 as uint16)
Stored = tuple[str, np.ndarray]

_STORED_AS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8", "BF16": "<u2"}
_KOHYA_PREFIX = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}

# A few modules of each kind that SDXL has, with narrow shapes [out, in].
SDXL_SHAPES: dict[Module, Shape] = {
    ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"): (64, 64),
    ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"): (64, 64),
    ("unet", "down_blocks.2.attentions.1.transformer_blocks.1.attn2.to_k"): (128, 96),
    ("unet", "mid_block.attentions.0.proj_in"): (128, 128),
    ("unet", "up_blocks.0.attentions.2.transformer_blocks.0.ff.net.0.proj"): (1024, 128),
    ("unet", "up_blocks.1.resnets.0.conv_shortcut"): (64, 160, 1, 1),
    ("unet", "up_blocks.2.resnets.0.time_emb_proj"): (32, 128),
    ("text_encoder", "text_model.encoder.layers.0.self_attn.q_proj"): (32, 32),
    ("text_encoder", "text_model.encoder.layers.2.self_attn.out_proj"): (32, 32),
    ("text_encoder", "text_model.encoder.layers.1.mlp.fc1"): (64, 32),
    ("text_encoder_2", "text_model.encoder.layers.0.self_attn.v_proj"): (64, 64),
    ("text_encoder_2", "text_model.encoder.layers.1.mlp.fc2"): (64, 128),
}

# SD 1.5's, with the real widths where they identify the model.
SD15_SHAPES: dict[Module, Shape] = {
    ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"): (320, 768),
    ("unet", "down_blocks.0.attentions.0.proj_in"): (320, 320, 1, 1),
    ("unet", "up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_q"): (320, 320),
    ("text_encoder", "text_model.encoder.layers.0.self_attn.q_proj"): (768, 768),
}


@dataclass(frozen=True, eq=False)
class Factors:
    """The LoRA of one module, in memory: float32 down [rank, in] and up [out, rank]."""

    down: np.ndarray
    up: np.ndarray
    alpha: float | None
    conv: bool  # stored with the two trailing dimensions of a 1×1 convolution

    def stored(self, dtype: str) -> tuple[Stored, Stored]:
        """Return (down, up) in the dtype and shape for the file."""
        tail = (1, 1) if self.conv else ()
        return tuple((dtype, encode(factor.reshape(factor.shape + tail), dtype)) for factor in (self.down, self.up))  # pyright: ignore[reportReturnType]


def encode(values: np.ndarray, dtype: str) -> np.ndarray:
    """Convert float32 values to a format's dtype: bfloat16 and F8_E5M2 are truncated, F8_E4M3 is rounded to nearest."""
    if dtype == "BF16":
        return (np.asarray(values, np.float32, order="C").view(np.uint32) >> 16).astype("<u2")
    if dtype == "F8_E5M2":
        return (np.asarray(values, "<f2", order="C").view("<u2") >> 8).astype(np.uint8)
    if dtype == "F8_E4M3":
        known = _e4m3_values()
        nearest = np.abs(np.abs(values)[..., None] - known).argmin(-1).astype(np.uint8)
        return np.where(values < 0, nearest | 0x80, nearest).astype(np.uint8)
    return values.astype(_STORED_AS[dtype])


def _e4m3_values() -> np.ndarray:
    """The 127 values of F8_E4M3 that are not negative, from its definition: 4 bits of exponent, 3 of fraction."""
    return np.array([(i % 8) / 8 * 2**-6 if i < 8 else (1 + i % 8 / 8) * 2.0 ** (i // 8 - 7) for i in range(127)])


def random_factors(
    shapes: Mapping[Module, Shape] = SDXL_SHAPES,
    rank: int = 4,
    alpha: float | None = None,
    seed: int = 0,
    size: float = 0.05,
) -> dict[Module, Factors]:
    """Normal random factors for the given weight shapes; a shape with four dimensions is a 1×1 convolution.

    The values have 7 significant bits and are multiples of 2⁻²⁴, so that every dtype holds them exactly. `size` is the
    typical magnitude of one element of up · down.
    """
    random = np.random.default_rng(seed)
    deviation = (size / rank**0.5) ** 0.5

    def normal(*shape: int) -> np.ndarray:
        values = random.normal(0, deviation, shape).astype(np.float32)
        values = (values.view(np.uint32) & 0xFFFE0000).view(np.float32)
        return np.round(values * 2**24) / np.float32(2**24)

    return {
        module: Factors(normal(rank, shape[1]), normal(shape[0], rank), alpha, conv=len(shape) == 4)
        for module, shape in shapes.items()
    }


def shapes_of(models: Mapping[str, torch.nn.Module], targets: Iterable[str]) -> dict[Module, Shape]:
    """Weight shapes of the modules, by component, whose path ends in one of `targets` ("attn1.to_q", "proj_in"…)."""
    endings = tuple(targets)
    return {
        (component, _canonical(component, path)): tuple(module.weight.shape)  # pyright: ignore[reportCallIssue, reportArgumentType]
        for component, model in models.items()
        for path, module in model.named_modules()
        if path.endswith(endings) and hasattr(module, "weight")
    }


def _canonical(component: str, path: str) -> str:
    return path if component == "unet" or path.startswith("text_") else f"text_model.{path}"


def kohya_key(module: Module, naming: Literal["diffusers", "sgm"] = "diffusers", base: str = "sdxl") -> str:
    """The name of a module in a kohya file, without the role: lora_unet_down_blocks_1_…"""
    component, path = module
    if component == "unet" and naming == "sgm":
        path = dict(unet_modules(TOPOLOGIES[base]))[path]
    prefix = "lora_te_" if component == "text_encoder" and base != "sdxl" else _KOHYA_PREFIX[component]
    return prefix + path.replace(".", "_")


def write_kohya(
    path: Path,
    factors: Mapping[Module, Factors],
    *,
    naming: Literal["diffusers", "sgm"] = "diffusers",
    base: str = "sdxl",
    dtype: str = "F32",
    alpha_shape: tuple[int, ...] = (),
    alpha_dtype: str = "F32",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a file like kohya's sd-scripts: flat names, `.alpha` tensors."""
    tensors: dict[str, Stored] = {}
    for module, lora in factors.items():
        key = kohya_key(module, naming, base)
        tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"] = lora.stored(dtype)
        if lora.alpha is not None:
            tensors[f"{key}.alpha"] = alpha_dtype, encode(np.full(alpha_shape, lora.alpha, np.float32), alpha_dtype)
    return write_tensors(path, tensors, metadata)


# How diffusers and PEFT have spelled (down, up) after the module path, over the years.
PEFT_SPELLINGS = {
    "peft": (".lora_A.weight", ".lora_B.weight"),
    "peft-named": (".lora_A.default_0.weight", ".lora_B.default_0.weight"),
    "diffusers": (".lora.down.weight", ".lora.up.weight"),
    "linear-layer": (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    "processor": ("_lora.down.weight", "_lora.up.weight"),
}
_OLD_TEXT_NAMES = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


def write_peft(
    path: Path,
    factors: Mapping[Module, Factors],
    *,
    spelling: str = "peft",
    prefix: str = "",
    text_model: bool = True,
    dtype: str = "F32",
    alpha_tensors: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a file like diffusers: dotted names after "unet.", "text_encoder." or "text_encoder_2.".

    `spelling` is a key of PEFT_SPELLINGS, `prefix` goes between component and path ("base_model.model."), `text_model`
    decides whether text encoders' paths begin with that word.
    """
    tensors: dict[str, Stored] = {}
    for (component, module), lora in factors.items():
        name = module if text_model else module.removeprefix("text_model.")
        down, up = PEFT_SPELLINGS[spelling]
        if spelling == "processor":
            if (old := _processor_name(name)) == name:  # modules outside of attention had no processor
                down, up = PEFT_SPELLINGS["linear-layer"]
            name = old
        key = f"{component}.{prefix}{name}"
        tensors[key + down], tensors[key + up] = lora.stored(dtype)
        if lora.alpha is not None and alpha_tensors:
            tensors[f"{key}.alpha"] = "F32", np.float32(lora.alpha).reshape(())
    return write_tensors(path, tensors, metadata)


def _processor_name(name: str) -> str:
    parent, _, child = name.removesuffix(".0").rpartition(".")
    if child in ("to_q", "to_k", "to_v", "to_out"):
        return f"{parent}.processor.{child}"
    return f"{parent}.{_OLD_TEXT_NAMES[child]}" if child in _OLD_TEXT_NAMES else name


def write_tensors(path: Path, tensors: Mapping[str, Stored], metadata: Mapping[str, str] | None = None) -> Path:
    """Write a safetensors file with any content."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, (dtype, array) in tensors.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, end]}
    return write_bytes(path, json.dumps(header).encode(), b"".join(array.tobytes() for _, array in tensors.values()))


def write_bytes(path: Path, header: bytes, data: bytes = b"") -> Path:
    """Write the header's length, the header padded to 8 bytes, and the data; the header may be invalid."""
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def add_random_lora(model: torch.nn.Module, *, adapter_name: str = "default", seed: int = 0, **config: Any) -> None:
    """Let PEFT add a LoRA with random factors to a diffusers or transformers model; `config` goes to LoraConfig."""
    import torch
    from peft import LoraConfig

    model.add_adapter(LoraConfig(**config), adapter_name=adapter_name)  # pyright: ignore[reportCallIssue]
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.1, generator=generator)


def save_diffusers(folder: Path, models: Mapping[str, torch.nn.Module], *, alphas: bool = True) -> Path:
    """Let diffusers save the LoRAs of models that `add_random_lora` prepared, by component; return the file.

    `alphas`: with `lora_adapter_metadata`, as its training scripts have done since 0.34.
    """
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    from diffusers.training_utils import _collate_lora_metadata
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    layers = {f"{name}_lora_layers": get_peft_model_state_dict(model) for name, model in models.items()}
    for name in layers.keys() - {"unet_lora_layers"}:
        layers[name] = convert_state_dict_to_diffusers(layers[name])
    pipeline = StableDiffusionXLPipeline if "text_encoder_2" in models else StableDiffusionPipeline
    pipeline.save_lora_weights(folder, **layers, **(_collate_lora_metadata(dict(models)) if alphas else {}))
    return folder / "pytorch_lora_weights.safetensors"


def peft_deltas(component: str, model: torch.nn.Module, adapter_name: str = "default") -> dict[Module, np.ndarray]:
    """Return what PEFT itself would add to each weight, in float32."""
    from peft.tuners.lora import LoraLayer

    return {
        (component, _canonical(component, path)): layer.get_delta_weight(adapter_name).detach().float().numpy()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        for path, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }


def result_or_message(errors: type[Exception] | tuple[type[Exception], ...], call: Callable[[], _T]) -> _T | str:
    """Return what the call returns, or the one-line message if it raises one of these errors."""
    try:
        return call()
    except errors as error:
        message = str(error)
    assert message.isprintable(), message
    return message


def message_of(error: type[Exception], call: Callable[[], object]) -> str:
    """Return the one-line message of exactly this error, which the call must raise."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is error
    assert message.isprintable(), message
    return message

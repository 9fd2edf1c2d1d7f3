"""Load one network of a diffusers folder or of a single checkpoint into torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorablend.adapters.files.checkpoint import SCALES
from lorablend.convert.checkpoint import checkpoint_family, prefixes_of

if TYPE_CHECKING:
    import torch

# Where diffusers looks for a second text encoder under transformers' names.
_RENAMED = {"conditioner.embedders.1.transformer.": "text_encoders.clip_g.transformer."}

__all__ = ["load_network"]


def load_network(
    cls: Any,
    name: str,
    folder: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str] | None,
    variant: str | None,
    dtype: torch.dtype,
) -> tuple[Any, list[str]]:
    """Load the network of this class and name, such as "unet", and list the tensors that its files lack.

    diffusers and transformers leave missing tensors empty or fill them at random, so the caller should refuse them.

    Args:
        folder: The configurations, and without a checkpoint also the weights, those of the variant.
    """
    folder = str(folder)
    if not checkpoint:
        model, info = cls.from_pretrained(
            folder,
            subfolder=name,
            variant=variant,
            use_safetensors=True,
            torch_dtype=dtype,
            output_loading_info=True,
        )
        return model, sorted(info["missing_keys"])
    tensors = _read(os.fspath(checkpoint), name)
    if hasattr(cls, "from_single_file"):
        model = cls.from_single_file(tensors, config=folder, subfolder=name, torch_dtype=dtype)
    else:
        from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

        model = create_diffusers_clip_model_from_ldm(cls, tensors, name, folder, torch_dtype=dtype)
    return model, sorted(key for key, tensor in model.named_parameters() if tensor.is_meta)


def _read(checkpoint: str, name: str) -> dict[str, torch.Tensor]:
    """Read the tensors of one network; weights in scaled fp8 are multiplied by their scales."""
    from safetensors import safe_open

    prefixes = prefixes_of(checkpoint_family(Path(checkpoint)), name)
    with safe_open(checkpoint, "pt") as file:
        found = {key: file.get_tensor(key) for key in file.keys() if key.startswith(prefixes)}  # noqa: SIM118
    for key in [key for key in found if key.endswith(SCALES)]:
        scale, weight = found.pop(key).float(), f"{key.rpartition('.')[0]}.weight"
        if weight in found:
            values = found[weight].float()
            found[weight] = values * scale.reshape(-1, *(1,) * (values.dim() - 1))
    tensors: dict[str, torch.Tensor] = {}
    for key, tensor in found.items():
        start = next((old for old in _RENAMED if key.startswith(old)), "")
        tensors[_RENAMED.get(start, "") + key.removeprefix(start)] = tensor
    return tensors

"""Load one network of a diffusers folder or of a single checkpoint into torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

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
    if hasattr(cls, "from_single_file"):
        model = cls.from_single_file(str(checkpoint), config=folder, subfolder=name, torch_dtype=dtype)
    else:
        from diffusers.loaders.single_file_utils import (
            create_diffusers_clip_model_from_ldm,
            load_single_file_checkpoint,
        )

        tensors = load_single_file_checkpoint(str(checkpoint))
        model = create_diffusers_clip_model_from_ldm(cls, tensors, name, folder, torch_dtype=dtype)
    return model, sorted(key for key, tensor in model.named_parameters() if tensor.is_meta)

"""Tiny diffusers folders, for tests that only look at names and sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

__all__ = ["SDXL_NETWORKS", "WHERE", "write_folder", "write_tensors"]

SDXL_NETWORKS = ("text_encoder", "text_encoder_2", "unet", "vae")
WHERE = {
    "unet": "unet/diffusion_pytorch_model",
    "text_encoder": "text_encoder/model",
    "text_encoder_2": "text_encoder_2/model",
    "vae": "vae/diffusion_pytorch_model",
}


def write_folder(folder: Path, class_name: str = "StableDiffusionXLPipeline") -> Path:
    """Write a diffusers folder of SDXL's form, with one tensor of six numbers per network."""
    files: dict[str, Any] = {"model_index.json": {"_class_name": class_name}}
    files |= {f"{network}/config.json": {} for network in SDXL_NETWORKS}
    files |= {f"{name}/tokenizer.json": {} for name in ("tokenizer", "tokenizer_2")}
    files |= {"scheduler/scheduler_config.json": {}}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    for network in SDXL_NETWORKS:
        write_tensors(folder / f"{WHERE[network]}.safetensors")
    return folder


def write_tensors(file: Path, *names: str, metadata: dict[str, str] | None = None) -> Path:
    save_file({name: np.zeros((2, 3), np.float16) for name in names or ("weight",)}, file, metadata)
    return file

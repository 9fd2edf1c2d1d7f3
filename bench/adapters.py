"""Adapters for SDXL at full size with random factors, like those of kohya's trainer."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from lorablend.engine import ModelFolder

Shapes = Mapping[str, tuple[int, ...]]  # module path -> [out, in] or [out, in, height, width]

# The modules of SDXL's UNet that kohya's trainer changes: 722.
KOHYA = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
# The modules that diffusers' train_lcm_distill_lora_sdxl.py changes: 788.
LCM = (*KOHYA, "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj")


def modules(model: ModelFolder, targets: tuple[str, ...]) -> Shapes:
    """Return the UNet's modules whose path ends in one of the targets, with the shapes of their weights."""
    weights = {name.removesuffix(".weight"): shape for (component, name), shape in model.parameters.items()
               if component == "unet" and name.endswith(".weight")}  # fmt: skip
    return {path: shape for path, shape in sorted(weights.items()) if path.endswith(tuple(f".{t}" for t in targets))}


def write_adapter(path: Path, modules: Shapes, rank: int, seed: int) -> Path:
    """Write a float16 file with kohya keys, diffusers block names, and alpha = rank / 2."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for module, (out_features, in_features, *kernel) in modules.items():
        key = "lora_unet_" + module.replace(".", "_")
        fan_in = in_features * int(np.prod(kernel, dtype=int))
        down = rng.standard_normal((rank, in_features, *kernel), np.float32) / fan_in**0.5
        up = rng.standard_normal((out_features, rank, *(1 for _ in kernel)), np.float32) * 0.02
        tensors[f"{key}.lora_down.weight"] = down.astype(np.float16)
        tensors[f"{key}.lora_up.weight"] = up.astype(np.float16)
        tensors[f"{key}.alpha"] = np.array(rank / 2, np.float16)
    save_file(tensors, path, {"ss_base_model_version": "sdxl_base_v1-0", "ss_network_module": "networks.lora"})
    return path

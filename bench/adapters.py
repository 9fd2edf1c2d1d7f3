"""Adapters of SDXL's full size with random factors, as kohya's trainer writes them."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

# (prefix of the block, width, transformer blocks) of every Transformer2DModel in SDXL's UNet.
ATTENTIONS = [
    *((f"down_blocks.1.attentions.{i}", 640, 2) for i in range(2)),
    *((f"down_blocks.2.attentions.{i}", 1280, 10) for i in range(2)),
    ("mid_block.attentions.0", 1280, 10),
    *((f"up_blocks.0.attentions.{i}", 1280, 10) for i in range(3)),
    *((f"up_blocks.1.attentions.{i}", 640, 2) for i in range(3)),
]


def modules() -> dict[str, tuple[int, int]]:
    """Module path -> (out, in) of the 722 attention, feed-forward and projection layers."""
    found: dict[str, tuple[int, int]] = {}
    for prefix, width, blocks in ATTENTIONS:
        found[f"{prefix}.proj_in"] = found[f"{prefix}.proj_out"] = (width, width)
        for block in range(blocks):
            inside = f"{prefix}.transformer_blocks.{block}"
            for attention, context in (("attn1", width), ("attn2", 2048)):
                for name in ("to_q", "to_out.0"):
                    found[f"{inside}.{attention}.{name}"] = (width, width)
                for name in ("to_k", "to_v"):
                    found[f"{inside}.{attention}.{name}"] = (width, context)
            found[f"{inside}.ff.net.0.proj"] = (8 * width, width)
            found[f"{inside}.ff.net.2"] = (width, 4 * width)
    return found


def write_adapter(path: Path, rank: int, seed: int) -> Path:
    """fp16, kohya keys with diffusers block names, alpha = rank / 2, over all 722 modules."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for module, (out_features, in_features) in modules().items():
        key = "lora_unet_" + module.replace(".", "_")
        down = rng.standard_normal((rank, in_features), np.float32) / in_features**0.5
        up = rng.standard_normal((out_features, rank), np.float32) * 0.02
        tensors[f"{key}.lora_down.weight"] = down.astype(np.float16)
        tensors[f"{key}.lora_up.weight"] = up.astype(np.float16)
        tensors[f"{key}.alpha"] = np.array(rank / 2, np.float16)
    save_file(tensors, path, {"ss_base_model_version": "sdxl_base_v1-0", "ss_network_module": "networks.lora"})
    return path

"""Single-file checkpoints as Civitai ships them, made from a diffusers folder: the reverse of what diffusers does.

Names of the tensors: Stability's generative-models (SDXL) and CompVis' latent-diffusion (SD 1.x).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

Tensors = dict[str, np.ndarray]
Renames = Iterable[tuple[str, str | Callable[[re.Match[str]], str]]]

_RESNET = [
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.norm2\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.conv_shortcut\.", ".skip_connection."),
]
_UNET = [
    (r"^time_embedding\.linear_1\.", "time_embed.0."),
    (r"^time_embedding\.linear_2\.", "time_embed.2."),
    (r"^add_embedding\.linear_1\.", "label_emb.0.0."),
    (r"^add_embedding\.linear_2\.", "label_emb.0.2."),
    (r"^conv_in\.", "input_blocks.0.0."),
    (r"^conv_norm_out\.", "out.0."),
    (r"^conv_out\.", "out.2."),
    (r"^mid_block\.attentions\.0\.", "middle_block.1."),
    (r"^mid_block\.resnets\.(\d)\.", lambda m: f"middle_block.{2 * int(m[1])}."),
    (r"^down_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f"input_blocks.{3 * int(m[1]) + int(m[2]) + 1}.0."),
    (r"^down_blocks\.(\d)\.attentions\.(\d)\.", lambda m: f"input_blocks.{3 * int(m[1]) + int(m[2]) + 1}.1."),
    (r"^down_blocks\.(\d)\.downsamplers\.0\.conv\.", lambda m: f"input_blocks.{3 * int(m[1]) + 3}.0.op."),
    (r"^up_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f"output_blocks.{3 * int(m[1]) + int(m[2])}.0."),
    (r"^up_blocks\.(\d)\.attentions\.(\d)\.", lambda m: f"output_blocks.{3 * int(m[1]) + int(m[2])}.1."),
]
_VAE = [
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_(q|k|v)\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
    (r"\.mid_block\.resnets\.(\d)\.", lambda m: f".mid.block_{int(m[1]) + 1}."),
    (r"\.down_blocks\.(\d)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up_blocks\.(\d)\.resnets\.", lambda m: f".up.{3 - int(m[1])}.block."),
    (r"\.up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f".up.{3 - int(m[1])}.upsample."),
]
_OPEN_CLIP = [
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.", ".attn."),
    (r"^text_projection\.weight", "text_projection"),
]


def copy_without(source: Path, folder: Path, key: str) -> Path:
    """Copy a diffusers folder, without this tensor of the UNet."""
    shutil.copytree(source, folder)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors[key]
    save_file(tensors, file, {"format": "pt"})
    return folder


def write_checkpoint(folder: Path, file: Path, *, extra: Iterable[str] = ()) -> Path:
    """Write the pipeline in `folder` as one file. extra: names of empty tensors to add, "v_pred" and the like."""
    tensors = {f"model.diffusion_model.{key}": value for key, value in _unet(_load(folder, "unet")).items()}
    tensors |= {f"first_stage_model.{key}": value for key, value in _vae(_load(folder, "vae")).items()}
    text = _load(folder, "text_encoder")
    if (folder / "text_encoder_2").exists():
        tensors |= {f"conditioner.embedders.0.transformer.{key}": value for key, value in text.items()}
        text_2 = _open_clip(_load(folder, "text_encoder_2"))
        tensors |= {f"conditioner.embedders.1.model.{key}": value for key, value in text_2.items()}
    else:
        tensors |= {f"cond_stage_model.transformer.{key}": value for key, value in text.items()}
    tensors |= {name: np.zeros(0, np.float32) for name in extra}
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, file)
    return file


def _load(folder: Path, network: str) -> Tensors:
    (file,) = (folder / network).glob("*.safetensors")
    return load_file(file)


def _rename(tensors: Tensors, renames: Renames) -> Tensors:
    renamed: Tensors = {}
    for key, value in tensors.items():
        for pattern, replacement in renames:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def _unet(tensors: Tensors) -> Tensors:
    upsamplers = [
        # An upsampler is the last module of its block: the third after an attention, else the second.
        (
            rf"^up_blocks\.{i}\.upsamplers\.0\.",
            f"output_blocks.{3 * i + 2}.{2 if f'up_blocks.{i}.attentions.0.norm.weight' in tensors else 1}.",
        )
        for i in range(4)
    ]
    resnets = {key: value for key, value in tensors.items() if ".resnets." in key}
    others = {key: value for key, value in tensors.items() if ".resnets." not in key}
    return _rename(resnets, [*_RESNET, *_UNET]) | _rename(others, [*upsamplers, *_UNET])


def _vae(tensors: Tensors) -> Tensors:
    renamed = _rename(tensors, _VAE)
    attention = re.compile(r"\.attn_1\.(q|k|v|proj_out)\.weight$")  # 1×1 convolutions here, linear layers in diffusers
    return {key: value[:, :, None, None] if attention.search(key) else value for key, value in renamed.items()}


def _open_clip(tensors: Tensors) -> Tensors:
    renamed = _rename(tensors, _OPEN_CLIP)
    for key in [key for key in renamed if ".attn.q_proj." in key]:
        three = [renamed.pop(key.replace("q_proj", name)) for name in ("q_proj", "k_proj", "v_proj")]
        renamed[key.replace("q_proj.", "in_proj_")] = np.concatenate(three)
    renamed["text_projection"] = renamed["text_projection"].T
    return renamed

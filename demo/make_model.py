"""Write the stand-in model and its adapters: shaped like SDXL, a few megabytes, random weights.

    python -m lorablend.demo.make_model      (needs lorablend[convert]; rewrites model/ and adapters/ beside this file)

Nobody trained it, so it paints abstract patterns, whatever the prompt says. Plain random weights would paint noise;
three things make patterns of it:

- every 3×3 convolution mixes channels at random and blurs, so what the UNet predicts is smooth;
- the VAE decoder's norms are drawn large and shifted, so it folds smooth fields into patches of colour with edges;
- text weighs much, so another prompt is another picture.

All numbers come from numpy's PCG64 and none is fitted, so every machine writes the same ones.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

from lorablend.convert import convert
from lorablend.demo.networks import sdxl_unet, text_config, vae
from lorablend.demo.tokenizer import clip_tokenizer, learn_merges
from lorablend.engine.ir import Ir
from lorablend.engine.model_folder import ModelFolder

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionXLPipeline

HERE = Path(__file__).parent
SIZE = 256  # pixels
SEED = 15  # the liveliest of the first forty
# Each is one token; other words are spelt.
WORDS = """
a an the and of in on at by with under over old new red blue green gold silver black white dark bright
fox cat dog bird horse fish dragon woman man child king queen robot castle tower house city street bridge garden
mountain river sea lake forest tree flower desert island sky moon sun star snow rain storm fire ice night day
morning evening light shadow photo painting drawing watercolor portrait landscape
"""
# name -> (seed, rank, alpha, keys). Ranks and alphas differ, so that a wrong scale would be seen.
ADAPTERS = {
    "embers": (1, 4, 2.0, "kohya"),
    "tide": (2, 6, 12.0, "peft"),
    "thicket": (3, 8, 4.0, "kohya"),
}
ADAPTER_GAIN = 0.6  # an adapter's change of a layer's output, where the layer's own output is 1


@dataclass(frozen=True)
class Draw:
    """How numbers are drawn. gain: deviation of a layer's output for inputs of deviation 1. bias: deviation of biases.
    norm, shift: a norm's weight, and the deviation of its bias. sharpness: 0 for convolutions that blur, 1 for none.
    """

    gain: float = 1.0
    bias: float = 0.1
    norm: float = 1.0
    shift: float = 0.0
    sharpness: float = 0.3


_TEXT = {"self_attn": Draw(gain=2), "position_embedding": Draw(gain=0.3)}
# Network -> words in a parameter's name -> how it is drawn. Chosen by eye.
RULES = {
    "text_encoder": _TEXT,
    "text_encoder_2": _TEXT,
    "unet": {
        "resnets": Draw(norm=1.5, shift=0.5, sharpness=0.2),
        "time_emb_proj": Draw(gain=0.5),
        "attn2.to_q": Draw(gain=2),
        "attn2.to_k": Draw(gain=2),
        "attn2.to_v": Draw(gain=3),
        "add_embedding": Draw(gain=4),
        "conv_out": Draw(gain=1.5, bias=0, sharpness=0),
    },
    "vae": {
        "decoder": Draw(norm=3, shift=1.5),
        "decoder.conv_in": Draw(sharpness=0),
        "decoder.mid_block.resnets": Draw(gain=1.5, norm=1.5, shift=0.5, sharpness=0),
        "decoder.conv_norm_out": Draw(norm=1.5, shift=0.5),
        "decoder.conv_out": Draw(bias=0),
    },
}


def main(out: Path = HERE) -> None:
    """Write out/model and out/adapters."""
    with tempfile.TemporaryDirectory() as folder:
        source, model = Path(folder, "source"), Path(folder, "model")
        _pipeline().save_pretrained(source)
        convert(source, model, weights="fp16")
        (model / "lorablend.json").unlink()  # the date in it would differ at every run
        shutil.rmtree(out / "model", ignore_errors=True)
        shutil.copytree(model, out / "model")
    shutil.rmtree(out / "adapters", ignore_errors=True)
    (out / "adapters").mkdir()
    shapes = Ir(ModelFolder(out / "model").component("unet")).shapes
    for name, (seed, rank, alpha, keys) in ADAPTERS.items():
        file = out / "adapters" / f"{name}.safetensors"
        _write_adapter(file, shapes, seed, rank, alpha, keys)
        _sort_metadata(file)
        file.chmod(0o644)  # safetensors writes for the owner only; these are installed


def _pipeline() -> StableDiffusionXLPipeline:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    merges = learn_merges(WORDS.split())
    tokenizer, tokenizer_2 = clip_tokenizer(merges), clip_tokenizer(merges, pad_token="!")
    width = 32
    pipeline = StableDiffusionXLPipeline(
        vae=vae((16, 16, 24, 32), SIZE, scaling_factor=0.13025),
        text_encoder=CLIPTextModel(text_config(tokenizer, width, layers=2)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer_2, width, layers=2, hidden_act="gelu")),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=sdxl_unet(
            SIZE,
            text_widths=(width, width),
            block_out_channels=(32, 64, 64),
            layers_per_block=1,
            transformer_layers_per_block=1,
            attention_head_dim=(2, 4, 4),
            norm_num_groups=8,
        ),
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            timestep_spacing="leading",
            steps_offset=1,
        ),
    )
    rng = np.random.default_rng(SEED)
    for name, rules in RULES.items():
        _draw(getattr(pipeline, name), rng, rules)
    return pipeline


def _draw(network: torch.nn.Module, rng: np.random.Generator, rules: dict[str, Draw]) -> None:
    """Set every parameter. The last rule whose words are in a parameter's name holds for it."""
    import torch

    for name, parameter in network.named_parameters():
        draw = Draw()
        for words, rule in rules.items():
            if words in name:
                draw = rule
        shape = tuple(parameter.shape)
        if "norm" in name:
            value = np.full(shape, draw.norm) if name.endswith("weight") else draw.shift * rng.standard_normal(shape)
        elif len(shape) == 1:
            value = draw.bias * rng.standard_normal(shape)
        elif "embedding.weight" in name:
            value = draw.gain * rng.standard_normal(shape)
        elif shape[2:] == (3, 3):
            value = _blur(shape, rng, draw)
        else:
            value = draw.gain * rng.standard_normal(shape) / np.sqrt(shape[1])
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(value))


def _blur(shape: tuple[int, ...], rng: np.random.Generator, draw: Draw) -> np.ndarray:
    """A 3×3 convolution that mixes channels at random, each row's sum being zero, and blurs what it mixes."""
    mixture = rng.standard_normal(shape[:2])
    mixture = draw.gain * (mixture - mixture.mean(axis=1, keepdims=True)) / np.sqrt(shape[1])
    smooth = np.outer([1, 2, 1], [1, 2, 1]) / 16
    point = np.zeros((3, 3))
    point[1, 1] = 1
    return mixture[:, :, None, None] * (draw.sharpness * point + (1 - draw.sharpness) * smooth)


def _write_adapter(
    path: Path, shapes: Mapping[str, tuple[int, ...]], seed: int, rank: int, alpha: float, keys: str
) -> None:
    """Random factors on the UNet's attention layers, in kohya's or in PEFT's spelling, fp16."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    layers = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(".weight")}
    for module, shape in sorted(layers.items()):
        if ".attn" not in module:
            continue
        down = (rng.standard_normal((rank, shape[1])) / shape[1] ** 0.5).astype(np.float16)
        up = (rng.standard_normal((shape[0], rank)) * ADAPTER_GAIN / (alpha / rank) / rank**0.5).astype(np.float16)
        if keys == "kohya":
            key = "lora_unet_" + module.replace(".", "_")
            tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
            tensors[f"{key}.alpha"] = np.array(alpha, np.float16)
        else:
            tensors |= {f"unet.{module}.lora_A.weight": down, f"unet.{module}.lora_B.weight": up}
    metadata = {"ss_base_model_version": "sdxl_base_v1-0", "modelspec.title": path.stem}
    if keys == "peft":
        metadata["lora_adapter_metadata"] = json.dumps({"unet.r": rank, "unet.lora_alpha": alpha})
    save_file(tensors, path, metadata)


def _sort_metadata(path: Path) -> None:
    """safetensors writes metadata in an order that differs from run to run."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(end - 8)
    path.write_bytes(content[:8] + text + content[end:])


if __name__ == "__main__":
    main()

"""Write a diffusers pipeline of SDXL's full size with random weights, and convert it.

    python -m bench.build FOLDER        FOLDER/source (7 GB, fp16 safetensors), FOLDER/model (7 GB, fp16 IR)

The weights are drawn in fp16, one tensor at a time, so that the peak of memory is near the UNet's 5.1 GB. A step's time
does not depend on the values; they are scaled so that activations stay finite.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lorablend.convert import convert
from lorablend.demo.tokenizer import clip_tokenizer

UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
}
TEXT = {"vocab_size": 49408, "bos_token_id": 512, "eos_token_id": 513}
TEXT_1 = TEXT | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "pad_token_id": 513,
}
TEXT_2 = TEXT | {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
    "pad_token_id": 0,
}
INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.39.0",
    "force_zeros_for_empty_prompt": True,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_source(folder: Path) -> None:
    """Write the diffusers folder, one network at a time."""
    networks = {
        "unet": lambda: UNet2DConditionModel(**UNET),
        "vae": lambda: AutoencoderKL(**VAE),
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**TEXT_1)),
        "text_encoder_2": lambda: CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_2)),
    }
    for name, build in networks.items():
        with torch.device("meta"):
            network = build().half()
        network = network.to_empty(device="cpu")
        _randomize(network)
        network.save_pretrained(folder / name, max_shard_size="20GB")
        print(f"{name}: {sum(p.numel() for p in network.parameters()) / 1e6:.0f} M parameters")
        del network
    clip_tokenizer([]).save_pretrained(folder / "tokenizer")
    clip_tokenizer([], pad_token="!").save_pretrained(folder / "tokenizer_2")
    EulerDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="leading", steps_offset=1
    ).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(INDEX, indent=2))


@torch.no_grad()
def _randomize(network: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        is_vector = parameter.ndim == 1
        mean = 1.0 if is_vector and "norm" in name and name.endswith("weight") else 0.0
        spread = 0.02 if is_vector else 0.8 * parameter[0].numel() ** -0.5  # OpenVINO would remove a bias of zeros
        parameter.copy_(torch.empty(parameter.shape).normal_(mean, spread, generator=generator))
    for name, buffer in network.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1])[None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder to write; needs 15 GB of disk")
    folder = parser.parse_args().folder
    if not (folder / "source" / "model_index.json").exists():
        write_source(folder / "source")
    convert(folder / "source", folder / "model", weights="fp16", progress=lambda *done: print(*done, file=sys.stderr))


if __name__ == "__main__":
    main()

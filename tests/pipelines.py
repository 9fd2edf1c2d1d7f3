"""Small diffusers pipelines with random weights, shaped like SDXL and SD 1.5, for tests that need a model.

Their names, blocks and tensor layouts are the real ones; only the numbers of channels and layers are small. A freshly
initialised VAE decodes everything to one flat grey, so the decoder's last layer is scaled until pictures spread over
0..255: a comparison "at most one level apart" then means something.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lorablend.demo.networks import sdxl_unet, text_config, vae
from lorablend.demo.tokenizer import clip_tokenizer

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel

HUB_ID, HUB_REVISION = "owner/name", "0123456789abcdef0123456789abcdef01234567"
PICTURE_SIZE = 64  # pixels, the native width and height of both pipelines
_PROMPT = "a fox in the snow"
MERGES = ["f o", "fo x</w>", "c a", "ca t</w>", "t h", "th e</w>"]
_VAE_CHANNELS = (16, 16, 32, 32)
_NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def write_sdxl(folder: Path, *, prediction_type: str = "epsilon") -> Path:
    """Write an SDXL-shaped pipeline (UNet of 8 M parameters, two text encoders), f32, to `folder`; return that."""
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    tokenizer, tokenizer_2 = clip_tokenizer(MERGES), clip_tokenizer(MERGES, pad_token="!")
    encoder = CLIPTextModel(text_config(tokenizer, 32, layers=3))
    encoder_2 = CLIPTextModelWithProjection(text_config(tokenizer_2, 64, layers=3, hidden_act="gelu"))
    unet = sdxl_unet(
        PICTURE_SIZE,
        text_widths=(32, 64),
        block_out_channels=(32, 64, 128),
        layers_per_block=2,
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(2, 4, 8),
        norm_num_groups=16,
    )
    scheduler = EulerDiscreteScheduler(
        **_NOISE, timestep_spacing="leading", steps_offset=1, prediction_type=prediction_type
    )
    pipeline = StableDiffusionXLPipeline(
        vae(_VAE_CHANNELS, PICTURE_SIZE, scaling_factor=0.13025),
        encoder,
        encoder_2,
        tokenizer,
        tokenizer_2,
        unet,
        scheduler,
    )
    _vary(pipeline)
    _spread_pictures(pipeline)
    pipeline.save_pretrained(folder)
    return folder


def write_sd15(folder: Path) -> Path:
    """Write an SD 1.5-shaped pipeline (four levels, 1×1 convolutions at attention), f32, to `folder`; return that."""
    import torch
    from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    torch.manual_seed(1)
    tokenizer = clip_tokenizer(MERGES)
    unet = UNet2DConditionModel(
        sample_size=PICTURE_SIZE // 8,
        block_out_channels=(32, 64, 64, 64),
        layers_per_block=2,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        attention_head_dim=8,
        cross_attention_dim=48,
        norm_num_groups=16,
    )
    scheduler = PNDMScheduler(**_NOISE, skip_prk_steps=True, steps_offset=1)
    pipeline = StableDiffusionPipeline(
        vae=vae(_VAE_CHANNELS, PICTURE_SIZE, scaling_factor=0.18215),
        text_encoder=CLIPTextModel(text_config(tokenizer, 48, layers=3)),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,  # pyright: ignore[reportArgumentType] - documented way to leave it out
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )
    _vary(pipeline)
    _spread_pictures(pipeline)
    pipeline.save_pretrained(folder)
    return folder


def write_hub_cache(source: Path, cache: Path) -> Path:
    """Write the diffusers folder `source` to `cache` as huggingface_hub would leave `HUB_ID`; return its folder."""
    repository = cache / "models--owner--name"
    shutil.copytree(source, repository / "snapshots" / HUB_REVISION)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(HUB_REVISION)
    return repository


def _vary(pipeline: DiffusionPipeline) -> None:
    """Randomise norms and biases: they start as 1 and 0, which OpenVINO removes from the graph."""
    import torch

    for name in ("unet", "text_encoder", "text_encoder_2"):
        for module in getattr(pipeline, name, torch.nn.Identity()).modules():
            if isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm):
                torch.nn.init.normal_(module.weight, 1, 0.1)
            bias = getattr(module, "bias", None)
            if isinstance(bias, torch.nn.Parameter) and not bias.any():
                torch.nn.init.normal_(bias, 0, 0.1)


def _spread_pictures(pipeline: DiffusionPipeline) -> None:
    """Scale the VAE decoder's last layer so that a picture's channels have mean 0 and deviation 0.45 in [-1, 1]."""
    import torch

    decoder: AutoencoderKL = pipeline.vae  # pyright: ignore[reportAttributeAccessIssue] - set from the constructor
    unet: UNet2DConditionModel = pipeline.unet  # pyright: ignore[reportAttributeAccessIssue]
    pipeline.set_progress_bar_config(disable=True)
    size = unet.config["sample_size"]
    with torch.no_grad():
        noise = torch.randn(2, 4, size, size)
        result = pipeline([_PROMPT] * 2, latents=noise, num_inference_steps=4, output_type="latent")  # pyright: ignore[reportCallIssue]
        latents = result.images / decoder.config["scaling_factor"]
        last = decoder.decoder.conv_out
        for _ in range(2):  # the second round removes the mean that the bias of the first one leaves
            pixels = decoder.decode(latents).sample
            gain = 0.45 / pixels.std(dim=(0, 2, 3))
            bias = last.bias
            assert bias is not None
            last.weight.mul_(gain[:, None, None, None])
            bias.copy_((bias - pixels.mean(dim=(0, 2, 3))) * gain)

"""Small untrained networks with Stable Diffusion's blocks and names, for the demo model and those of the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorablend.demo.tokenizer import clip_tokenizer, learn_merges

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTokenizer

__all__ = ["demo_pipeline", "sdxl_unet", "text_config", "vae"]


def text_config(tokenizer: CLIPTokenizer, width: int, layers: int, **changes: Any) -> CLIPTextConfig:
    """Configure a CLIP text encoder for the tokenizer's vocabulary."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **changes,
    )


def vae(channels: Sequence[int], size: int, scaling_factor: float) -> AutoencoderKL:
    """Make a VAE of four levels with these channels, for pictures of size × size pixels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=tuple(channels),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=size,
        scaling_factor=scaling_factor,
    )


def sdxl_unet(size: int, text_widths: tuple[int, int], **changes: Any) -> UNet2DConditionModel:
    """Make a UNet like SDXL's for pictures of size × size pixels and two text encoders of these widths."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=size // 8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=sum(text_widths),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + text_widths[1],
        **changes,
    )


def demo_pipeline(trained_vae: Path) -> StableDiffusionXLPipeline:
    """Make the demo model with this VAE; its text encoders and UNet (11 million parameters) are untrained."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    from lorablend.demo.grammar import WORDS
    from lorablend.demo.styles import STYLES

    width = 96
    merges = learn_merges(sorted({*WORDS, *STYLES, "style", "in"}))  # one token each; other words are spelled out
    tokenizer, tokenizer_2 = clip_tokenizer(merges), clip_tokenizer(merges, pad_token="!")
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(trained_vae),
        text_encoder=CLIPTextModel(text_config(tokenizer, width, layers=3)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer_2, width, layers=3, hidden_act="gelu")),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=sdxl_unet(
            256,
            text_widths=(width, width),
            block_out_channels=(64, 128, 192),
            layers_per_block=1,
            transformer_layers_per_block=1,
            attention_head_dim=(2, 4, 6),
            norm_num_groups=16,
        ),
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            timestep_spacing="leading",
            steps_offset=1,
        ),
    )

"""Small networks with the blocks and names of Stable Diffusion's, and torch's own first numbers: for models that are
made in code, the demo's and the tests'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTokenizer

__all__ = ["sdxl_unet", "text_config", "vae"]


def text_config(tokenizer: CLIPTokenizer, width: int, layers: int, **changes: Any) -> CLIPTextConfig:
    """A CLIP text encoder's configuration, for the tokenizer's own words."""
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
    """A VAE of four levels with these channels, for pictures of size × size pixels."""
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
    """SDXL's UNet for pictures of size × size pixels and two text encoders of these widths; changes: its sizes."""
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

"""Write the stand-in model and its adapters: shaped like SDXL, a few megabytes, random weights.

    python -m lorablend.demo.make_model      (needs lorablend[train]; rewrites model/ and adapters/ beside this file)

Nobody trained it, so it paints abstract patterns, whatever the prompt. What makes it worth looking at: the VAE
decoder's last layer is scaled until a picture's colours spread over the whole range, and the text encoders and
cross-attention are scaled up until another prompt is another picture.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from lorablend.convert import convert
from lorablend.demo.tokenizer import clip_tokenizer, learn_merges
from lorablend.engine.ir import Ir
from lorablend.engine.model_folder import ModelFolder

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline
    from transformers import CLIPTextConfig, CLIPTokenizer

HERE = Path(__file__).parent
SIZE = 256  # pixels
WORDS = ["the", "and", "with", "fox", "cat", "snow", "forest", "night", "city", "sea", "red", "blue", "gold", "old"]
# name -> (seed, rank, alpha, keys). Ranks and alphas differ, so that a wrong scale would be seen.
ADAPTERS = {
    "embers": (1, 4, 2.0, "kohya"),
    "tide": (2, 6, 12.0, "peft"),
    "thicket": (3, 8, 4.0, "kohya"),
}


def main() -> None:
    """Write demo/model and demo/adapters."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        _pipeline().save_pretrained(source)
        convert(source, Path(folder) / "model", weights="fp16")
        (Path(folder) / "model" / "lorablend.json").unlink()  # the date in it would differ at every run
        shutil.rmtree(HERE / "model", ignore_errors=True)
        shutil.copytree(Path(folder) / "model", HERE / "model")
    shutil.rmtree(HERE / "adapters", ignore_errors=True)
    (HERE / "adapters").mkdir()
    for name, (seed, rank, alpha, keys) in ADAPTERS.items():
        _write_adapter(HERE / "adapters" / f"{name}.safetensors", seed, rank, alpha, keys)


def _pipeline() -> StableDiffusionXLPipeline:
    import torch
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(2026)
    merges = learn_merges(WORDS)
    tokenizer, tokenizer_2 = clip_tokenizer(merges), clip_tokenizer(merges, pad_token="!")
    unet = UNet2DConditionModel(
        sample_size=SIZE // 8,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(1, 2, 4),
        cross_attention_dim=32 + 48,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 48,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
        scaling_factor=0.13025,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(_text_config(tokenizer, 32)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer_2, 48, hidden_act="gelu")),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            timestep_spacing="leading",
            steps_offset=1,
        ),
    )
    with torch.no_grad():
        for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
            for parameter in encoder.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(4)
        for name, parameter in unet.named_parameters():
            if "attn2" in name and parameter.ndim == 2:
                parameter.mul_(2)
    _spread_colours(pipeline)
    return pipeline


def _text_config(tokenizer: CLIPTokenizer, width: int, **changes: Any) -> CLIPTextConfig:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **changes,
    )


def _spread_colours(pipeline: StableDiffusionXLPipeline) -> None:
    """Scale the VAE decoder's last layer so that a picture's channels have mean 0 and deviation 0.5 in [-1, 1]."""
    import torch

    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        noise = torch.randn(2, 4, SIZE // 8, SIZE // 8)
        latents = pipeline(["a fox", "the sea"], latents=noise, num_inference_steps=8, output_type="latent").images
        last = pipeline.vae.decoder.conv_out
        for _ in range(2):  # the second round removes the mean that the first one's bias left
            pixels = pipeline.vae.decode(latents / pipeline.vae.config["scaling_factor"]).sample
            gain = 0.5 / pixels.std(dim=(0, 2, 3))
            last.weight.mul_(gain[:, None, None, None])
            last.bias.copy_((last.bias - pixels.mean(dim=(0, 2, 3))) * gain)


def _write_adapter(path: Path, seed: int, rank: int, alpha: float, keys: str) -> None:
    """Random factors on the UNet's attention and feed-forward layers, in kohya's or in PEFT's spelling, fp16."""
    rng = np.random.default_rng(seed)
    unet = Ir(ModelFolder(HERE / "model").component("unet"))
    tensors: dict[str, np.ndarray] = {}
    for module, shape in sorted(unet.shapes.items()):
        if "transformer_blocks" not in module:
            continue
        down = (rng.standard_normal((rank, shape[1])) / shape[1] ** 0.5).astype(np.float16)
        up = (rng.standard_normal((shape[0], rank)) * 1.2 / (alpha / rank) / rank**0.5).astype(np.float16)
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


if __name__ == "__main__":
    main()

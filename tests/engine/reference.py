"""The independent reference: diffusers with PEFT, and adapters that they save."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 4
PROMPT = "the fox, a cat"
NEGATIVE = "cat fox"

UNET_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
# The layers that LCM-LoRA changes, which include convolutions and the time embedding's projections.
LCM_TARGETS = [
    *UNET_TARGETS,
    "conv1",
    "conv2",
    "conv_shortcut",
    "time_emb_proj",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
]
TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def load(source: Path, **kwargs: Any) -> Any:
    """diffusers' pipeline of a folder, in f32."""
    import torch
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(source, torch_dtype=torch.float32, **kwargs)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_adapter(
    source: Path,
    path: Path,
    *,
    seed: int,
    rank: int,
    alpha: float,
    kohya: bool,
    text: bool,
    strength: float = 0.5,
    targets: Sequence[str] = UNET_TARGETS,
    pipeline: Any = None,
    **config: Any,
) -> Path:
    """Write an adapter with random factors as diffusers and PEFT do, with kohya keys and alpha, or with PEFT keys.

    pipeline: diffusers' pipeline of `source`, which keeps the adapter.
    """
    import torch
    from diffusers.loaders import StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
    from diffusers.utils import convert_all_state_dict_to_peft, convert_state_dict_to_kohya
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    pipeline = pipeline or load(source)
    xl = hasattr(pipeline, "text_encoder_2")
    generator = torch.Generator().manual_seed(seed)
    components = {"unet": list(targets)}
    if text:
        components |= {"text_encoder": TEXT_TARGETS} | ({"text_encoder_2": TEXT_TARGETS} if xl else {})
    states, configs = {}, {}
    for name, targets in components.items():
        model = getattr(pipeline, name)
        configs[name] = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, **config)
        model.add_adapter(configs[name])
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                spread = strength / parameter[0].numel() ** 0.5
                parameter.data = torch.randn(parameter.shape, generator=generator) * spread
        states[name] = get_peft_model_state_dict(model)
    mixin = StableDiffusionXLLoraLoaderMixin if xl else StableDiffusionLoraLoaderMixin
    layers = {f"{name}_lora_layers": state for name, state in states.items()}
    metadata = {f"{name}_lora_adapter_metadata": config.to_dict() for name, config in configs.items()}
    mixin.save_lora_weights(path.parent, **layers, **metadata, weight_name=path.name)
    if kohya:
        from safetensors.torch import load_file

        state = convert_state_dict_to_kohya(convert_all_state_dict_to_peft(load_file(path)))
        for key in list(state):
            if key.endswith(".alpha"):
                state[key] = torch.tensor(float(alpha))
        save_file(state, path, {"ss_network_module": "networks.lora"})
    return path


def draw(
    pipeline: Any, adapters: Sequence[tuple[Path, float]], latents: np.ndarray, *, steps: int, **kwargs: Any
) -> np.ndarray:
    """A picture, uint8 [height, width, 3]. diffusers loads the adapters for it, and PEFT weights them."""
    import torch

    names = [f"a{i}" for i in range(len(adapters))]
    for name, (path, _) in zip(names, adapters, strict=True):
        pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
    if names:
        pipeline.set_adapters(names, [weight for _, weight in adapters])
    try:
        with torch.no_grad():
            result = pipeline(latents=torch.from_numpy(latents), num_inference_steps=steps, output_type="pil", **kwargs)
    finally:
        if names:
            pipeline.unload_lora_weights()
    return np.array(result.images[0])


def levels_apart(one: np.ndarray, other: np.ndarray) -> int:
    """The largest difference between two pictures, in 8-bit levels."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())

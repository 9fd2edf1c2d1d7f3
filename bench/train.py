"""Seconds per training step and peak memory, compared with the inner loop of diffusers' own example script.

    python -m bench.train [--tiny] [--pixels 512] [--batch 1] [--rounds 1] [--steps 4] [--variants …] [--write]

Networks of SDXL's full size with random weights in bf16, made from their configurations, LoRA of rank 16, AdamW, on the
GPU if there is one. Every variant runs in a separate process, which has its own peak; the first step warms up and does
not count. On a CPU the largest takes about 14 GB. --tiny runs the same at toy size, to see that it works; --write adds
the table to bench/RESULTS.md.

lorablend trains attention, MLP and the projections around them, on latents and embeddings that were computed once.
examples/text_to_image/train_text_to_image_lora_sdxl.py of diffusers trains attention only, and encodes picture and
caption in every step; "the same work" is its loop without the encoding, on lorablend's layers.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from bench.build import TEXT_1, TEXT_2, UNET, VAE, _randomize
from bench.run import RESULTS, _heading
from lorablend.train.config import TrainConfig
from lorablend.train.networks import UNET_TARGETS, attach
from lorablend.train.noise import TrainingNoise, draw

RANK = 16
TOKENS = 77
ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")  # what diffusers' script trains
SCHEDULER = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
TINY = {
    "unet": {
        "block_out_channels": (32, 64, 64),
        "transformer_layers_per_block": 1,
        "attention_head_dim": (2, 4, 4),
        "norm_num_groups": 16,
        "cross_attention_dim": 96,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 64,
    },
    "vae": {"block_out_channels": (16, 16, 32, 32), "norm_num_groups": 8, "layers_per_block": 1},
    "text_1": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "text_2": {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
}
VARIANTS = {
    "ours": "lorablend",
    "ours-checkpointing": "lorablend, gradient checkpointing",
    "diffusers": "diffusers' script",
    "diffusers-checkpointing": "diffusers' script, gradient checkpointing",
    "same": "diffusers' loop, the same work as lorablend",
    "same-checkpointing": "diffusers' loop, the same work as lorablend, gradient checkpointing",
}


def _random(build: Callable[[], Any], dtype: torch.dtype, device: torch.device) -> Any:
    """Make a frozen network with random weights that is never in memory in another type."""
    with torch.device("meta"):
        network = build().to(dtype)
    network = network.to_empty(device="cpu")
    _randomize(network)
    return network.to(device).requires_grad_(False)


def _sizes(tiny: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    changes = TINY if tiny else {"unet": {}, "vae": {}, "text_1": {}, "text_2": {}}
    texts = [base | changes[name] for name, base in (("text_1", TEXT_1), ("text_2", TEXT_2))]
    if tiny:
        texts = [text | {"projection_dim": text["hidden_size"]} for text in texts]
    return UNET | changes["unet"], VAE | changes["vae"], texts[0], texts[1]


def _steps(accelerator: Accelerator, optimizer: Any, loss_of: Callable[[int], torch.Tensor], count: int) -> list[float]:
    """Measure the seconds of each step: loss, backward pass, clipping, optimizer."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    seconds = []
    for number in range(count + 1):
        start = time.perf_counter()
        loss = loss_of(number)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def ours(accelerator: Accelerator, settings: argparse.Namespace) -> list[float]:
    """Run the trainer's network, noise and loss weights on latents and embeddings that are ready."""
    device, pixels, batch = accelerator.device, settings.pixels, settings.batch
    unet_sizes, _, text_1, text_2 = _sizes(settings.tiny)
    unet = _random(lambda: UNet2DConditionModel(**unet_sizes), torch.bfloat16, device)
    config = TrainConfig(data=Path("."), model="random", out=Path("x.safetensors"), rank=RANK, learning_rate=1e-4)
    models: Any = SimpleNamespace(unet=unet, vae=torch.nn.Module(), text_encoders=(), family="sdxl")
    network = attach(models, config)
    if settings.checkpointing:
        unet.enable_gradient_checkpointing()
    unet, optimizer = accelerator.prepare(unet.train(), torch.optim.AdamW(network.parameters(), weight_decay=0.01))
    schedule = TrainingNoise(SCHEDULER | {"prediction_type": "epsilon"})
    width = text_1["hidden_size"] + text_2["hidden_size"]
    latents = torch.randn(batch, 4, pixels // 8, pixels // 8, device=device)
    texts = torch.randn(batch, TOKENS, width, device=device).bfloat16()
    added = {
        "text_embeds": torch.randn(batch, text_2["projection_dim"], device=device).bfloat16(),
        "time_ids": torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]] * batch, dtype=torch.float32, device=device),
    }

    def loss_of(number: int) -> torch.Tensor:
        drawn = draw(config.seed, number, latents.shape, schedule.timesteps)
        weights = schedule.weights(drawn.timesteps, config.min_snr_gamma).to(device)
        drawn = type(drawn)(drawn.timesteps.to(device), drawn.noise.to(device))
        noisy = schedule.add_noise(latents, drawn)
        guess = unet(noisy, drawn.timesteps, texts, added_cond_kwargs=added).sample
        errors = (guess.float() - schedule.target(latents, drawn)) ** 2
        return (errors.mean((1, 2, 3)) * weights).mean()

    return _steps(accelerator, optimizer, loss_of, settings.steps)


def diffusers_script(accelerator: Accelerator, settings: argparse.Namespace) -> list[float]:
    """Run what diffusers' script does in a step, with its defaults and mixed precision bf16."""
    device, pixels, batch = accelerator.device, settings.pixels, settings.batch
    same = settings.kind == "same"
    unet_sizes, *_ = _sizes(settings.tiny)
    unet = _random(lambda: UNet2DConditionModel(**unet_sizes), torch.bfloat16, device)
    targets = list(UNET_TARGETS if same else ATTENTION)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=targets))
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    if settings.checkpointing:
        unet.enable_gradient_checkpointing()
    unet, optimizer = accelerator.prepare(unet.train(), torch.optim.AdamW(parameters, lr=1e-4))
    scheduler = DDPMScheduler(**SCHEDULER)
    size = [pixels, pixels, 0, 0, pixels, pixels]
    time_ids = torch.tensor([size] * batch, dtype=torch.bfloat16, device=device)
    inputs = (_kept if same else _encoded)(settings, device)

    def loss_of(number: int) -> torch.Tensor:
        latents, text, embeds = inputs()
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (batch,), device=device)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        added = {"text_embeds": embeds, "time_ids": time_ids}
        guess = unet(noisy, timesteps, text, added_cond_kwargs=added).sample
        return torch.nn.functional.mse_loss(guess.float(), noise.float())

    return _steps(accelerator, optimizer, loss_of, settings.steps)


Inputs = Callable[[], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]  # latents, hidden states, pooled states


def _kept(settings: argparse.Namespace, device: torch.device) -> Inputs:
    _, _, text_1, text_2 = _sizes(settings.tiny)
    batch, cells = settings.batch, settings.pixels // 8
    shapes = (
        (batch, 4, cells, cells),
        (batch, TOKENS, text_1["hidden_size"] + text_2["hidden_size"]),
        (batch, text_2["projection_dim"]),
    )
    latents, states, pooled = (torch.randn(shape, device=device).bfloat16() for shape in shapes)
    return lambda: (latents, states, pooled)


def _encoded(settings: argparse.Namespace, device: torch.device) -> Inputs:
    """Encode picture and caption with VAE (f32, as in the script) and text encoders in every step."""
    _, vae_sizes, text_1, text_2 = _sizes(settings.tiny)
    vae = _random(lambda: AutoencoderKL(**vae_sizes), torch.float32, device)
    encoders = [
        _random(lambda: CLIPTextModel(CLIPTextConfig(**text_1)), torch.bfloat16, device),
        _random(lambda: CLIPTextModelWithProjection(CLIPTextConfig(**text_2)), torch.bfloat16, device),
    ]
    pictures = torch.rand(settings.batch, 3, settings.pixels, settings.pixels, device=device) * 2 - 1
    tokens = torch.full((settings.batch, TOKENS), 513, device=device)

    @torch.no_grad()
    def encode() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        latents = vae.encode(pictures).latent_dist.sample() * vae.config.scaling_factor
        outputs = [encoder(tokens, output_hidden_states=True) for encoder in encoders]
        states = torch.cat([output.hidden_states[-2] for output in outputs], -1)
        return latents.bfloat16(), states, outputs[1].text_embeds

    return encode


def _child(settings: argparse.Namespace) -> None:
    settings.kind, _, rest = settings.variant.partition("-")
    settings.checkpointing = rest == "checkpointing"
    torch.manual_seed(0)
    accelerator = Accelerator(mixed_precision="bf16", cpu=not torch.cuda.is_available())
    seconds = (ours if settings.kind == "ours" else diffusers_script)(accelerator, settings)
    if accelerator.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e9
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # KB on Linux -> GB
    name = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else "CPU"
    print(json.dumps({"steps": seconds, "peak": peak, "device": name}))


def _measure(settings: argparse.Namespace, options: list[str]) -> tuple[str, str]:
    """Run all variants; return the table as Markdown, and the device's name."""
    runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in settings.variants}
    for number in range(settings.rounds):
        for variant in settings.variants if number % 2 == 0 else reversed(settings.variants):
            command = [sys.executable, "-m", "bench.train", "--child", variant, *options]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            runs[variant].append(json.loads(output.splitlines()[-1]))
            print(variant, [round(s, 3) for s in runs[variant][-1]["steps"]], file=sys.stderr)
    lines = ["| | median s per step | fastest | peak GB |", "|---" * 4 + "|"]
    for variant, results in runs.items():
        steps = [seconds for result in results for seconds in result["steps"]]
        peak = max(result["peak"] for result in results)
        lines.append(f"| {VARIANTS[variant]} | {statistics.median(steps):.3f} | {min(steps):.3f} | {peak:.1f} |")
    return "\n".join(lines), runs[settings.variants[0]][0]["device"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to see that it runs")
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--write", action="store_true", help="append to bench/RESULTS.md")
    parser.add_argument("--child", dest="variant", choices=list(VARIANTS), help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.variant:
        _child(settings)
        return
    options = [f"--pixels={settings.pixels}", f"--batch={settings.batch}", f"--steps={settings.steps}"]
    options += ["--tiny"] if settings.tiny else []
    table, device = _measure(settings, options)
    command = f"python -m bench.train --rounds {settings.rounds} {' '.join(options)}"
    text = f"## One training step\n\n{_heading()}; {device}; `{command}`\n\n{table}\n"
    print(text)
    if settings.write:
        with RESULTS.open("a", encoding="utf-8") as results:
            results.write("\n" + text)


if __name__ == "__main__":
    main()

"""Train the demo model's VAE on drawn pictures: 8 × 8 pixels become one cell of four numbers, as in SDXL's VAE.

    python -m lorablend.demo.train_vae FOLDER [--steps 5000]       (needs lorablend[train])

FOLDER gets the pictures, a checkpoint every 200 steps, from which the next start continues, and at the end vae/, a
diffusers folder. The demo model can only draw what the VAE can reconstruct, so the log tells for each style how well it
reconstructs pictures that it was not trained on.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as f

from lorablend.adapters.files.atomic import atomic_write
from lorablend.demo.networks import vae as new_vae
from lorablend.demo.pictures import TAUGHT_STYLES, draw_all, held_out_scenes, training_scenes

__all__ = ["DEVICE", "average", "load_checkpoint", "save_checkpoint", "to_input"]

CHANNELS = (16, 32, 64, 96)
SIZE = 256
CROP = 128
SCALING_FACTOR = 0.13025
BATCH = 16
RATE = 1e-3
WARMUP = 200
AVERAGED = 0.999  # the shipped weights are a moving average
KL = 1e-6
# The decoder will get latents from a small UNet, so it must not depend on small differences.
LATENT_NOISE = 0.05
EDGES = 1.0  # weight of the difference of neighbouring pixels; L1 alone blurs outlines
TINTS = 6.0  # weight of the hues of 4 × 4 pixels; without it outlines dominate, and small things turn grey
PICTURES = 6000
PLAIN = 0.5  # fraction of the pictures without a style
CHECKPOINT_EVERY = 200
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=5000)
    arguments = parser.parse_args()
    folder, steps = arguments.folder, arguments.steps
    plain = int(1 / PLAIN - 1) or 1
    styles = [style for name in TAUGHT_STYLES for style in ([None] * plain + [name])]
    pictures = draw_all(folder / "vae-pictures.npy", training_scenes(PICTURES, seed=1), styles, SIZE)

    torch.manual_seed(0)
    model = new_vae(CHANNELS, SIZE, scaling_factor=1.0).to(DEVICE)
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)
    state = {"model": model, "averaged": averaged, "optimizer": optimizer}
    start = load_checkpoint(folder / "vae.checkpoint", state)
    began = time.monotonic()
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate_at(step, steps, WARMUP)
        loss, error = _loss(model, _batch(pictures, step), step)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average(averaged, model, min(AVERAGED, (1 + step) / (10 + step)))
        if step % 50 == 0:
            pace = (time.monotonic() - began) / (step - start + 1)
            print(f"step {step} L1 {error:.4f} {pace:.2f} s/step", flush=True)  # noqa: T201
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            save_checkpoint(folder / "vae.checkpoint", state, step + 1)
        if (step + 1) % 1000 == 0 or step + 1 == steps:
            print(_report(averaged), flush=True)  # noqa: T201
    _finish(averaged, pictures, folder / "vae")


def rate_at(step: int, steps: int, warmup: int) -> float:
    """A linear warm-up, then a cosine down to 2 %."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@torch.no_grad()
def average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the model's."""
    for old, new in zip(averaged.parameters(), model.parameters(), strict=True):
        old.lerp_(new, 1 - decay)


def save_checkpoint(path: Path, state: dict[str, Any], step: int) -> None:
    """Write a checkpoint after `step` steps."""
    with atomic_write(path) as file:
        torch.save({name: part.state_dict() for name, part in state.items()} | {"step": step}, file)


def load_checkpoint(path: Path, state: dict[str, Any]) -> int:
    """Load a checkpoint and return its step; 0 if there is none."""
    if not path.exists():
        return 0
    saved = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in state.items():
        part.load_state_dict(saved[name])
    return saved["step"]


def to_input(pictures: np.ndarray) -> torch.Tensor:
    """Convert uint8 [batch, height, width, 3] to f32 [batch, 3, height, width], -1 to 1."""
    return torch.from_numpy(np.array(pictures)).to(DEVICE).permute(0, 3, 1, 2).float() / 127.5 - 1


def _batch(pictures: np.ndarray, step: int) -> torch.Tensor:
    """The batch of a step, f32 [batch, 3, crop, crop], -1 to 1: crops, but every fourth batch whole pictures halved."""
    rng = np.random.default_rng([2, step])
    chosen = np.sort(rng.choice(len(pictures), BATCH, replace=False))
    whole = to_input(pictures[chosen])
    if step % 4 == 0:
        return f.avg_pool2d(whole, SIZE // CROP)
    corners = rng.integers(0, SIZE - CROP + 1, (BATCH, 2))
    crops = [p[:, y : y + CROP, x : x + CROP] for p, (y, x) in zip(whole, corners, strict=True)]
    flips = rng.integers(0, 2, BATCH)
    return torch.stack([crop.flip(2) if flip else crop for crop, flip in zip(crops, flips, strict=True)])


def _loss(model: Any, x: torch.Tensor, step: int) -> tuple[torch.Tensor, float]:
    generator = torch.Generator().manual_seed(step)
    with torch.autocast(DEVICE, torch.bfloat16):
        posterior = model.encode(x).latent_dist
        drawn, noise = (torch.randn(posterior.mean.shape, generator=generator).to(DEVICE) for _ in range(2))
        latent = posterior.mean.float() + posterior.std.float() * drawn
        latent = latent + LATENT_NOISE * latent.detach().std() * noise
        y = model.decode(latent).sample.float()
    error = (y - x).abs().mean()
    edges = sum((y.diff(dim=axis) - x.diff(dim=axis)).abs().mean() for axis in (2, 3))
    means = f.avg_pool2d(y - x, 4)
    tints = (means - means.mean(1, keepdim=True)).abs().mean()
    kl = posterior.kl().float().mean()
    return error + 0.5 * (y - x).square().mean() + EDGES * edges + TINTS * tints + KL * kl, float(error.detach())


@torch.no_grad()
def _report(model: Any) -> str:
    """The peak signal-to-noise ratio in decibels on held-out pictures."""
    lines = []
    for style in (None, *TAUGHT_STYLES):
        from lorablend.demo.drawing import draw

        drawn = [np.asarray(draw(s, 9000 + i, SIZE, style)) for i, s in enumerate(held_out_scenes(6, seed=3))]
        x = to_input(np.stack(drawn))
        y = model.decode(model.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        lines.append(f"{style or 'plain'} {10 * math.log10(4 / float((y - x).square().mean())):.1f}")
    return "PSNR: " + ", ".join(lines)


@torch.no_grad()
def _finish(model: Any, pictures: np.ndarray, out: Path) -> None:
    """Give every latent channel mean 0 and deviation 1 after SDXL's scaling factor, and save the model.

    SDXL's pipelines apply nothing but that factor, so the two 1 × 1 convolutions next to the latents absorb the rest.
    """
    x = to_input(pictures[:: max(1, len(pictures) // 200)])
    latents = torch.cat([model.encode(part).latent_dist.mode() for part in x.split(20)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3)) * SCALING_FACTOR
    last, first = model.quant_conv, model.post_quant_conv  # moments: 4 means, 4 logarithms of variances
    last.weight[:4] /= deviation[:, None, None, None]
    last.bias[:4] = (last.bias[:4] - mean) / deviation
    last.bias[4:] -= 2 * deviation.log()
    first.bias += first.weight[:, :, 0, 0] @ mean
    first.weight *= deviation[None, :, None, None]
    model.register_to_config(scaling_factor=SCALING_FACTOR)
    model.save_pretrained(out)


if __name__ == "__main__":
    main()

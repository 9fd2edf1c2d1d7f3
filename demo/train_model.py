"""Train the demo model's text encoders and UNet, together and from scratch, on drawn pictures.

    python -m lorablend.demo.train_model FOLDER --sizes 128 --until 6000
    python -m lorablend.demo.train_model FOLDER --sizes 256 128 --until 12000 --decay 3000

FOLDER has the VAE that lorablend.demo.train_vae made. A checkpoint is written every 250 steps, from which the next
start continues; pictures of held-out captions every 1000; at the end model/, a diffusers folder with the averaged
weights. Train on small pictures first: they cost a quarter, and teach the words. --decay is the number of steps over
which the learning rate falls at the end.

The objective is SDXL's own: noise is predicted, betas are scaled linear. Losses have min-SNR weights with γ = 5
(arXiv 2303.09556). A tenth of the captions is dropped: half of them become zeros, which SDXL's pipelines pass to the
UNet if there is no negative prompt, and half become the empty text.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from lorablend.adapters.files.atomic import atomic_write
from lorablend.demo.grammar import N_FORMS, Scene
from lorablend.demo.networks import demo_pipeline
from lorablend.demo.pictures import draw_all, held_out_scenes, training_scenes
from lorablend.demo.train_vae import DEVICE, average, load_checkpoint, save_checkpoint, to_input

BATCH = {128: 64, 256: 24}
PICTURES = {128: 40000, 256: 24000}
SHARE = {128: 1, 256: 4}  # relative frequency of each size, if there are several
RATE = 8e-4
WARMUP = 300
AVERAGED = 0.999
LEFT_OUT = 0.1
GAMMA = 5.0
CHECKPOINT_EVERY = 250
SAMPLES_EVERY = 1000
SAMPLES, SAMPLE_STEPS = 16, 20  # pictures on a sheet, and the steps that each takes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128], choices=sorted(BATCH))
    parser.add_argument("--until", type=int, required=True, help="the step to stop at, counted over all starts")
    parser.add_argument("--decay", type=int, default=0)
    arguments = parser.parse_args()
    folder, until = arguments.folder, arguments.until

    torch.manual_seed(0)
    pipeline = demo_pipeline(folder / "vae").to(DEVICE)
    data = {size: _latents(folder, pipeline.vae, size) for size in arguments.sizes}
    networks = nn.ModuleList([pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2])
    averaged = copy.deepcopy(networks).requires_grad_(False)
    optimizer = torch.optim.AdamW(networks.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    state = {"networks": networks, "averaged": averaged, "optimizer": optimizer}
    start = load_checkpoint(folder / "model.checkpoint", state)
    networks.train()
    began, losses = time.monotonic(), []
    for step in range(start, until):
        for group in optimizer.param_groups:
            group["lr"] = RATE * _rate_at(step, until, arguments.decay)
        rng = np.random.default_rng([3, step])
        share = np.array([SHARE[size] for size in arguments.sizes], float)
        size = int(rng.choice(arguments.sizes, p=share / share.sum()))
        loss, plain = _loss(pipeline, *data[size], size, rng)
        loss.backward()
        nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average(averaged, networks, min(AVERAGED, (1 + step) / (10 + step)))
        losses.append(plain)
        if (step + 1) % 100 == 0:
            pace = (time.monotonic() - began) / (step - start + 1)
            print(f"step {step + 1} loss {np.mean(losses[-100:]):.4f} {pace:.2f} s/step", flush=True)  # noqa: T201
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == until:
            save_checkpoint(folder / "model.checkpoint", state, step + 1)
        if (step + 1) % SAMPLES_EVERY == 0 or step + 1 == until:
            pipeline.register_modules(unet=averaged[0], text_encoder=averaged[1], text_encoder_2=averaged[2])
            _samples(pipeline, arguments.sizes[0], folder / f"samples-{step + 1}.png")
            if step + 1 == until:
                pipeline.save_pretrained(folder / "model")
            pipeline.register_modules(unet=networks[0], text_encoder=networks[1], text_encoder_2=networks[2])


def _rate_at(step: int, until: int, decay: int) -> float:
    """A warm-up, a constant rate, and half a cosine down to zero over the last `decay` steps."""
    remaining = until - step
    fall = 0.5 * (1 - math.cos(math.pi * remaining / decay)) if remaining < decay else 1.0
    return min(1.0, (step + 1) / WARMUP) * fall


@torch.no_grad()
def _latents(folder: Path, vae: Any, size: int) -> tuple[list[Scene], np.ndarray]:
    """Draw scenes; return them and their latents of unit variance, f16 [scenes, 4, size / 8, size / 8]."""
    scenes = training_scenes(PICTURES[size], seed=size)
    path = folder / f"latents-{size}.npy"
    if not path.exists():
        pictures = draw_all(folder / f"pictures-{size}.npy", scenes, [None], size)
        parts = []
        for i in range(0, len(pictures), 50):
            with torch.autocast(DEVICE, torch.bfloat16):
                latents = vae.encode(to_input(pictures[i : i + 50])).latent_dist.mode() * vae.config.scaling_factor
            parts.append(latents.half().cpu().numpy())
        with atomic_write(path) as part, part.open("wb") as file:
            np.save(file, np.concatenate(parts))
    return scenes, np.load(path, mmap_mode="r")


def _loss(
    pipeline: Any, scenes: list[Scene], latents: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    chosen = np.sort(rng.choice(len(latents), BATCH[size], replace=False))
    x = torch.from_numpy(latents[chosen].astype(np.float32)).to(DEVICE)
    noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32)).to(DEVICE)
    timesteps = torch.from_numpy(rng.integers(0, 1000, len(chosen)))
    signal = pipeline.scheduler.alphas_cumprod[timesteps].to(DEVICE)
    noisy = signal.sqrt()[:, None, None, None] * x + (1 - signal).sqrt()[:, None, None, None] * noise
    drop = rng.random(len(chosen))
    captions = [
        "" if chance < LEFT_OUT / 2 else scenes[i].caption(int(rng.integers(N_FORMS)))
        for i, chance in zip(chosen, drop, strict=True)
    ]
    kept = torch.from_numpy((drop < LEFT_OUT / 2) | (drop >= LEFT_OUT)).float().to(DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16):
        hidden, pooled = _encode(pipeline, captions)
        added = {
            "text_embeds": pooled * kept[:, None],
            "time_ids": torch.tensor([[size, size, 0, 0, size, size]]).float().repeat(len(chosen), 1).to(DEVICE),
        }
        prediction = pipeline.unet(
            noisy, timesteps.to(DEVICE), hidden * kept[:, None, None], added_cond_kwargs=added
        ).sample.float()
    errors = (prediction - noise).square().mean(dim=(1, 2, 3))
    snr = signal / (1 - signal)
    return (errors * snr.clamp(max=GAMMA) / snr).mean(), float(errors.detach().mean())


def _encode(pipeline: Any, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode as SDXL does: the second-to-last hidden states of both encoders, and the second's pooled projection."""
    one = pipeline.text_encoder(_tokens(pipeline.tokenizer, captions), output_hidden_states=True)
    two = pipeline.text_encoder_2(_tokens(pipeline.tokenizer_2, captions), output_hidden_states=True)
    return torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1), two.text_embeds


def _tokens(tokenizer: Any, captions: list[str]) -> torch.Tensor:
    return torch.stack([_tokens_of(tokenizer, caption) for caption in captions]).to(DEVICE)


@lru_cache(maxsize=200_000)
def _tokens_of(tokenizer: Any, caption: str) -> torch.Tensor:
    return tokenizer(caption, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids[0]


@torch.no_grad()
def _samples(pipeline: Any, size: int, out: Path) -> None:
    """Draw pictures of held-out captions, in two rows."""
    scenes = held_out_scenes(SAMPLES, seed=5)
    generator = torch.Generator().manual_seed(0)
    images = pipeline(
        [scene.caption() for scene in scenes],
        height=size,
        width=size,
        num_inference_steps=SAMPLE_STEPS,
        guidance_scale=3.0,
        generator=generator,
    ).images
    columns = -(-len(images) // 2)
    sheet = Image.new("RGB", (columns * size, 2 * size))
    for i, picture in enumerate(images):
        sheet.paste(picture, (i % columns * size, i // columns * size))
    sheet.save(out)


if __name__ == "__main__":
    main()

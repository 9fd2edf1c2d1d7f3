"""Noise, timesteps, targets and weights of the loss; the schedule and the kind of prediction are the model's own.

Chance is a pure function of (seed, place in the run), drawn on the CPU in f32: the same on every device, in every
precision, after every resume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

__all__ = ["NoiseDraw", "TrainingNoise", "draw", "fixed_draw"]


@dataclass(frozen=True)
class NoiseDraw:
    """timesteps: i64 [batch]. noise: f32 [batch, channels, height, width], in latent cells."""

    timesteps: torch.Tensor
    noise: torch.Tensor


def draw(seed: int, place: int, shape: Sequence[int], timesteps: int, *, offset: float = 0.0) -> NoiseDraw:
    """Timesteps, each of 0 .. timesteps - 1 as likely, and noise of unit variance, for the batch at this place.

    offset: how much of one number per picture and channel is added, so that brightness is learnt too
    (crosslabs.org/blog/diffusion-with-offset-noise).
    """
    generator = _generator(seed, "train", place)
    steps = torch.randint(0, timesteps, (shape[0],), generator=generator)
    noise = torch.randn(tuple(shape), generator=generator)
    if offset:
        noise = noise + offset * torch.randn((shape[0], shape[1], 1, 1), generator=generator)
    return NoiseDraw(steps, noise)


def fixed_draw(seed: int, picture: int, shape: Sequence[int], timesteps: int) -> NoiseDraw:
    """For a loss that can be compared from step to step: shape[0] timesteps spread evenly, and noise, of one picture.

    The timesteps are the middles of shape[0] equal parts of the schedule.
    """
    count = shape[0]
    steps = torch.tensor([int((index + 0.5) / count * timesteps) for index in range(count)])
    return NoiseDraw(steps, torch.randn(tuple(shape), generator=_generator(seed, "validate", picture)))


class TrainingNoise:
    """How a model was taught: betas, zero terminal SNR and prediction type of its scheduler's configuration."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._scheduler: Any = DDPMScheduler.from_config(dict(config))
        self.prediction_type: str = self._scheduler.config["prediction_type"]
        self.timesteps: int = self._scheduler.config["num_train_timesteps"]

    def add_noise(self, latents: torch.Tensor, drawn: NoiseDraw) -> torch.Tensor:
        """√ᾱ·latents + √(1-ᾱ)·noise (arXiv:2006.11239, equation 4)."""
        return self._scheduler.add_noise(latents, drawn.noise, drawn.timesteps)

    def target(self, latents: torch.Tensor, drawn: NoiseDraw) -> torch.Tensor:
        """What the network should say: the noise, or the velocity √ᾱ·noise - √(1-ᾱ)·latents (arXiv:2202.00512)."""
        if self.prediction_type == "v_prediction":
            return self._scheduler.get_velocity(latents, drawn.noise, drawn.timesteps)
        return drawn.noise

    def weights(self, timesteps: torch.Tensor, gamma: float | None) -> torch.Tensor:
        """Min-SNR weights (arXiv:2303.09556) of the loss at these timesteps, f32; ones for gamma None.

        min(SNR, γ) / SNR for epsilon; / (SNR + 1) for v, as diffusers' train_text_to_image_lora.py has it.
        """
        if gamma is None:
            return torch.ones(timesteps.shape)
        snr = compute_snr(self._scheduler, timesteps)
        clipped = snr.clamp(max=gamma)
        if self.prediction_type == "v_prediction":
            return clipped / (snr + 1)
        # at a terminal SNR of zero the quotient is 0 / 0, and its limit 1
        return torch.where(snr > 0, clipped / snr, 1.0)


def _generator(seed: int, *what: int | str) -> torch.Generator:
    digest = blake2b(repr((seed, *what)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)

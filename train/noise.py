"""Noise, timesteps, targets and weights of the loss; schedule and prediction type are the model's own.

Random numbers are a pure function of (seed, place in the run), drawn on the CPU in f32: the same on every device, in
every precision, after every resume.
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
    """The random numbers of one batch: timesteps, i64 [batch], and noise, f32 [batch, channels, height, width]."""

    timesteps: torch.Tensor
    noise: torch.Tensor


def draw(seed: int, place: int, shape: Sequence[int], timesteps: int, *, offset: float = 0.0) -> NoiseDraw:
    """Draw uniform timesteps from 0 .. timesteps - 1 and noise of unit variance for the batch at this place.

    Args:
        offset: Strength of one more random number per picture and channel, so that brightness is learned
            (crosslabs.org/blog/diffusion-with-offset-noise).
    """
    generator = _generator(seed, "train", place)
    steps = torch.randint(0, timesteps, (shape[0],), generator=generator)
    noise = torch.randn(tuple(shape), generator=generator)
    if offset:
        noise = noise + offset * torch.randn((shape[0], shape[1], 1, 1), generator=generator)
    return NoiseDraw(steps, noise)


def fixed_draw(seed: int, picture: int, shape: Sequence[int], timesteps: int) -> NoiseDraw:
    """Draw the same numbers for a picture at every step, so that its losses are comparable.

    The timesteps are the middles of shape[0] equal parts of the schedule.
    """
    count = shape[0]
    steps = torch.tensor([int((index + 0.5) / count * timesteps) for index in range(count)])
    return NoiseDraw(steps, torch.randn(tuple(shape), generator=_generator(seed, "validate", picture)))


class TrainingNoise:
    """The noise that a model was trained with: betas, zero terminal SNR and prediction type of its scheduler."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._scheduler: Any = DDPMScheduler.from_config(dict(config))
        self.prediction_type: str = self._scheduler.config["prediction_type"]
        self.timesteps: int = self._scheduler.config["num_train_timesteps"]

    def add_noise(self, latents: torch.Tensor, drawn: NoiseDraw) -> torch.Tensor:
        """√ᾱ·latents + √(1-ᾱ)·noise (arXiv:2006.11239, equation 4)."""
        return self._scheduler.add_noise(latents, drawn.noise, drawn.timesteps)

    def target(self, latents: torch.Tensor, drawn: NoiseDraw) -> torch.Tensor:
        """The network's target: the noise, or the velocity √ᾱ·noise - √(1-ᾱ)·latents (arXiv:2202.00512)."""
        if self.prediction_type == "v_prediction":
            return self._scheduler.get_velocity(latents, drawn.noise, drawn.timesteps)
        return drawn.noise

    def weights(self, timesteps: torch.Tensor, gamma: float | None) -> torch.Tensor:
        """Min-SNR weights (arXiv:2303.09556) of the loss at these timesteps, f32; ones if gamma is None.

        min(SNR, γ) / SNR for epsilon, min(SNR, γ) / (SNR + 1) for v, as in diffusers' train_text_to_image_lora.py.
        """
        if gamma is None:
            return torch.ones(timesteps.shape)
        snr = compute_snr(self._scheduler, timesteps)
        clipped = snr.clamp(max=gamma)
        if self.prediction_type == "v_prediction":
            return clipped / (snr + 1)
        # at a terminal SNR of zero the quotient is 0 / 0; its limit is 1
        return torch.where(snr > 0, clipped / snr, 1.0)


def _generator(seed: int, *what: int | str) -> torch.Generator:
    digest = blake2b(repr((seed, *what)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)

"""Noise and loss weights, compared with the papers' formulas in float64; both are pure functions of seed and place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lorablend.train.noise import NoiseDraw, TrainingNoise, draw, fixed_draw

_SDXL = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
_SHAPE = (3, 4, 8, 6)


def _alphas(*, zero_terminal: bool = False) -> np.ndarray:
    """ᾱ in float64: stable-diffusion's schedule; zero terminal SNR by arXiv:2305.08891, algorithm 1."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    if not zero_terminal:
        return alphas
    root = np.sqrt(alphas)
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return root**2


@pytest.mark.parametrize("zero_terminal", [False, True])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_formulas(prediction_type: str, zero_terminal: bool) -> None:
    """To 1e-5, for the schedule is a product of 1,000 numbers in f32."""
    config = {**_SDXL, "prediction_type": prediction_type, "rescale_betas_zero_snr": zero_terminal}
    schedule = TrainingNoise(config)
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(_SHAPE, generator=generator), torch.randn(_SHAPE, generator=generator)
    steps = torch.tensor([0, 500, 999])
    drawn = NoiseDraw(steps, noise)
    alphas = _alphas(zero_terminal=zero_terminal)[steps.numpy()][:, None, None, None]

    noisy = np.sqrt(alphas) * latents.numpy() + np.sqrt(1 - alphas) * noise.numpy()
    np.testing.assert_allclose(schedule.add_noise(latents, drawn).numpy(), noisy, atol=1e-5)
    velocity = np.sqrt(alphas) * noise.numpy() - np.sqrt(1 - alphas) * latents.numpy()
    target = velocity if prediction_type == "v_prediction" else noise.numpy()
    np.testing.assert_allclose(schedule.target(latents, drawn).numpy(), target, atol=1e-5)


@pytest.mark.parametrize("zero_terminal", [False, True])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr(prediction_type: str, zero_terminal: bool) -> None:
    config = {**_SDXL, "prediction_type": prediction_type, "rescale_betas_zero_snr": zero_terminal}
    steps = torch.arange(0, 999, 37)
    alphas = _alphas(zero_terminal=zero_terminal)[steps.numpy()]
    snr = alphas / (1 - alphas)
    divisor = snr + 1 if prediction_type == "v_prediction" else snr
    expected = np.minimum(snr, 5) / divisor
    got = TrainingNoise(config).weights(steps, 5.0)
    # relative 1e-3: near the end ᾱ is small and its f32 has lost digits
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-3)
    assert torch.equal(TrainingNoise(config).weights(steps, None), torch.ones(len(steps)))


def test_terminal_weight_is_finite() -> None:
    weights = TrainingNoise({**_SDXL, "rescale_betas_zero_snr": True}).weights(torch.tensor([999]), 5.0)
    assert weights.tolist() == [1.0]


def test_read_from_any_scheduler() -> None:
    """The configuration is that of the scheduler that draws, not of the one that the model was trained with."""
    config: dict[str, Any] = {**_SDXL, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
    assert TrainingNoise({**config, "prediction_type": "v_prediction"}).prediction_type == "v_prediction"
    assert TrainingNoise(config).prediction_type == "epsilon"
    assert TrainingNoise(config).timesteps == 1000


def test_draws_depend_on_seed_and_place_alone() -> None:
    first = draw(7, 40, _SHAPE, 1000, offset=0.1)
    torch.manual_seed(1)
    torch.randn(10)
    again = draw(7, 40, _SHAPE, 1000, offset=0.1)
    assert torch.equal(first.noise, again.noise)
    assert torch.equal(first.timesteps, again.timesteps)
    for other in (draw(8, 40, _SHAPE, 1000, offset=0.1), draw(7, 41, _SHAPE, 1000, offset=0.1)):
        assert not torch.equal(first.noise, other.noise)
        assert not torch.equal(first.timesteps, other.timesteps)


def test_draws_are_fair() -> None:
    """Timesteps uniform, noise standard normal: 4 standard errors each."""
    steps = torch.cat([draw(0, place, (8, 1, 1, 1), 1000).timesteps for place in range(500)]).double()
    assert abs(steps.mean() - 499.5) < 4 * 1000 / 12**0.5 / len(steps) ** 0.5
    assert steps.min() < 10
    assert steps.max() > 989
    noise = draw(0, 0, (8, 4, 32, 32), 1000).noise.double()
    assert abs(noise.mean()) < 4 / noise.numel() ** 0.5
    assert abs(noise.var() - 1) < 4 * (2 / noise.numel()) ** 0.5


def test_noise_offset_shifts_whole_channels() -> None:
    plain, shifted = (draw(3, 5, (2, 4, 16, 16), 1000, offset=offset) for offset in (0.0, 0.1))
    shift = (shifted.noise - plain.noise).flatten(2)
    assert torch.equal(plain.timesteps, shifted.timesteps)
    torch.testing.assert_close(shift, shift[:, :, :1].expand_as(shift), atol=1e-6, rtol=0)
    assert 0.02 < shift[:, :, 0].std() < 0.3


def test_fixed_draws_cover_the_schedule() -> None:
    fixed = fixed_draw(0, 2, (4, 4, 8, 8), 1000)
    assert fixed.timesteps.tolist() == [125, 375, 625, 875]
    assert torch.equal(fixed.noise, fixed_draw(0, 2, (4, 4, 8, 8), 1000).noise)
    assert not torch.equal(fixed.noise, fixed_draw(0, 3, (4, 4, 8, 8), 1000).noise)

"""Each sampler ends in the latents of diffusers' own scheduler class, for the same model, noise and config."""

import importlib
import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from lorablend.engine.schedulers import SCHEDULERS, NoiseSchedule, Plan, denoiser, plan, sample

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers and numpy 2

CLASSES = {
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "dpmpp_2m_sde": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "ddim": "DDIMScheduler",
    "lcm": "LCMScheduler",
    "tcd": "TCDScheduler",
}

# The largest difference allowed, relative to the largest latent. Both sides round to float32 (6e-8) in each of up to 30
# steps, in a different order. The largest difference measured is 3e-6 in the Euler family, where diffusers subtracts
# numbers of size sigma (14.6) from each other, and 2e-6 elsewhere.
TOLERANCE = 1e-5
# From a zero-SNR start, sigma 4096, that subtraction leaves an error of up to 4096 * 4 * 6e-8 in diffusers. lorablend
# does not subtract so, see test_large_sigmas_stay_exact.
EULER_ZERO_SNR_TOLERANCE = 2e-3

SDXL = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
SHAPE = (1, 4, 6, 6)
IMAGE = np.random.default_rng(5).standard_normal(SHAPE, dtype=np.float32)
MIX = np.random.default_rng(1).standard_normal((4, 4)) / 2


def toy(x: np.ndarray, t: float) -> np.ndarray:
    """A smooth, bounded UNet, computed in float64 so that both sides get the same answer for the same input."""
    mixed = np.einsum("oc,nchw->nohw", MIX, x.astype(np.float64))
    return np.tanh(mixed + np.sin(t / 150)).astype(np.float32)


def noises() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    while True:
        yield rng.standard_normal(SHAPE, dtype=np.float32)


def with_spacing(config: dict[str, Any], spacing: str) -> dict[str, Any]:
    """The config of a model whose own spacing this is."""
    if spacing in ("karras", "exponential"):
        return config | {f"use_{spacing}_sigmas": True}
    return config | {"timestep_spacing": spacing}


def run_diffusers(
    monkeypatch, name: str, config: dict[str, Any], steps: int, strength: float | None, model=toy, own=None
):
    """The timesteps and final latents of diffusers' class, used as in its pipelines. own: the caller's timesteps."""
    if name == "dpmpp_2m_sde":
        config = config | {"algorithm_type": "sde-dpmsolver++"}
    scheduler = getattr(diffusers, CLASSES[name]).from_config(config)
    draw = noises()
    module = importlib.import_module(type(scheduler).__module__)
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: torch.from_numpy(next(draw)), raising=False)
    if own is None:
        scheduler.set_timesteps(steps)
    else:
        scheduler.set_timesteps(timesteps=own)
    skipped = 0 if strength is None else steps - min(int(steps * strength), steps)
    timesteps = scheduler.timesteps[skipped:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    first = torch.from_numpy(next(draw))
    if strength is None:
        x = first * scheduler.init_noise_sigma
    else:
        x = scheduler.add_noise(torch.from_numpy(IMAGE), first, timesteps[:1])
    for t in timesteps:
        scaled = scheduler.scale_model_input(x, t)
        x = scheduler.step(torch.from_numpy(model(scaled.numpy(), t.item())), t, x).prev_sample
    return timesteps.numpy(), x.numpy()


def run_lorablend(
    name: str,
    config: dict[str, Any],
    steps: int,
    strength: float | None,
    spacing: str | None = None,
    model=toy,
    own=None,
):
    """The plan and the final latents."""
    schedule = NoiseSchedule.from_config(config)
    run = plan(name, steps, schedule, spacing=spacing, strength=strength, timesteps=own)
    draw = noises()
    first = next(draw)
    x = run.init_sigma * first if strength is None else IMAGE + float(run.sigmas[0]) * first
    return run, sample(run, denoiser(model, schedule.prediction_type), x, lambda: next(draw))


def difference(expected: tuple[np.ndarray, np.ndarray], got: tuple[Plan, np.ndarray]) -> float:
    """The largest difference of the final latents, relative to the largest latent. Compares the timesteps too."""
    assert got[0].timesteps.dtype.kind == expected[0].dtype.kind
    np.testing.assert_allclose(got[0].timesteps, expected[0], atol=1e-3)
    assert got[1].dtype == np.float32
    return float(np.abs(got[1] - expected[1]).max() / np.abs(expected[1]).max())


def cases() -> Iterator[tuple[str, str, str, bool]]:
    for (name, info), prediction_type, zero_snr in product(
        SCHEDULERS.items(), ("epsilon", "v_prediction", "sample"), (False, True)
    ):
        if name == "euler_a" and prediction_type == "sample":
            continue  # not built in diffusers
        if zero_snr and prediction_type == "epsilon" and info.family in ("ddim", "distilled"):
            continue  # diffusers divides by zero; lorablend refuses
        for spacing in info.spacings:
            if name == "euler_a" and spacing in ("karras", "exponential"):
                continue  # not in diffusers; see test_euler_a_takes_the_sigmas_of_euler
            yield name, spacing, prediction_type, zero_snr


@pytest.mark.parametrize(("name", "spacing", "prediction_type", "zero_snr"), list(cases()))
def test_final_latents(monkeypatch, name, spacing, prediction_type, zero_snr):
    config = SDXL | {"prediction_type": prediction_type, "rescale_betas_zero_snr": zero_snr}
    tolerance = EULER_ZERO_SNR_TOLERANCE if zero_snr and name in ("euler", "euler_a") else TOLERANCE
    for steps, strength in product((1, 4, 5, 20, 30), (None, 0.3, 0.65, 1.0)):
        if strength is not None and int(steps * strength) == 0:
            continue
        expected = run_diffusers(monkeypatch, name, with_spacing(config, spacing), steps, strength)
        got = run_lorablend(name, config, steps, strength, spacing)
        assert difference(expected, got) < tolerance, f"{steps} steps, strength {strength}"


OWN_TIMESTEPS = [
    (name, own)
    for name in ("euler", "dpmpp_2m", "dpmpp_2m_sde", "lcm", "tcd")  # the classes that take them
    for own in (
        [999, 749, 499, 249],
        [800],
        [999, 600, 500, 13, 0],
        [*range(990, 10, -60)],
        *([[998.5, 749.25, 1e-3]] if name == "euler" else []),
    )
]


@pytest.mark.parametrize(("name", "own"), OWN_TIMESTEPS)
@pytest.mark.parametrize("settings", [{}, {"timestep_spacing": "trailing", "final_sigmas_type": "sigma_min"}])
def test_timesteps_of_the_callers_own(monkeypatch, name, own, settings):
    """As in diffusers, Euler's start depends on the model's own spacing, not on the timesteps."""
    for strength in (None, 0.3, 0.65, 1.0):
        if strength is not None and int(len(own) * strength) == 0:
            continue
        expected = run_diffusers(monkeypatch, name, SDXL | settings, len(own), strength, own=own)
        got = run_lorablend(name, SDXL | settings, len(own), strength, own=own)
        assert difference(expected, got) < TOLERANCE, f"strength {strength}"


SETTINGS = [
    (name, settings)
    for name, choices in {
        "euler": [{"final_sigmas_type": "sigma_min"}, {"sigma_min": 0.1, "sigma_max": 9.0, "use_karras_sigmas": True}],
        "dpmpp_2m": [
            {"final_sigmas_type": "sigma_min"},
            {"final_sigmas_type": "sigma_min", "euler_at_final": True},
            {"final_sigmas_type": "sigma_min", "lower_order_final": False},
            {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True},
        ],
        "dpmpp_2m_sde": [{"final_sigmas_type": "sigma_min"}],
        "unipc": [
            {"final_sigmas_type": "sigma_min"},
            {"final_sigmas_type": "sigma_min", "lower_order_final": False},
            {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True},
            {"sigma_min": 0.1, "sigma_max": 9.0, "use_exponential_sigmas": True},
        ],
        "ddim": [
            {"set_alpha_to_one": True},
            {"clip_sample": True},
            {"clip_sample": True, "clip_sample_range": 0.5, "prediction_type": "v_prediction"},
        ],
        "lcm": [{"clip_sample": True}, {"original_inference_steps": 100}],
        "tcd": [{"original_inference_steps": 47}, {"clip_sample": True}],
    }.items()
    for settings in [
        *choices,
        {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": np.linspace(0.001, 0.01, 800).tolist(), "num_train_timesteps": 800},
        {"steps_offset": 0, "timestep_spacing": "trailing"},
    ]
]


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_the_models_own_settings(monkeypatch, name, settings):
    for steps in (4, 20):
        expected = run_diffusers(monkeypatch, name, SDXL | settings, steps, None)
        got = run_lorablend(name, SDXL | settings, steps, None)
        assert difference(expected, got) < TOLERANCE, f"{steps} steps"


@pytest.mark.parametrize("name", CLASSES)
def test_default_configs(monkeypatch, tmp_path, name):
    """Each class's own config file, and a config that has nothing but the class."""
    getattr(diffusers, CLASSES[name])().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "scheduler_config.json").read_text())
    for config in (saved, {"_class_name": CLASSES[name], "clip_sample": False}):
        expected = run_diffusers(monkeypatch, name, config, 10, None)
        assert difference(expected, run_lorablend(name, config, 10, None)) < TOLERANCE


@pytest.mark.parametrize("name", CLASSES)
def test_every_step(monkeypatch, name):
    """Not only the end: the model's inputs in every step are the same."""
    asked: list[np.ndarray] = []

    def model(x: np.ndarray, t: float) -> np.ndarray:
        asked.append(x)
        return toy(x, t)

    run_diffusers(monkeypatch, name, SDXL, 8, None, model)
    run_lorablend(name, SDXL, 8, None, model=model)
    assert len(asked) == 16
    for expected, actual in zip(asked[:8], asked[8:], strict=True):
        np.testing.assert_allclose(actual, expected, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_alphas_cumprod(beta_schedule):
    config = SDXL | {"beta_schedule": beta_schedule}
    expected = diffusers.EulerDiscreteScheduler.from_config(config).alphas_cumprod.numpy()
    np.testing.assert_allclose(NoiseSchedule.from_config(config).alphas_cumprod, expected, rtol=3e-7)
    # torch's square root is not correctly rounded, and the rescaling accumulates its errors.
    config |= {"rescale_betas_zero_snr": True}
    expected = diffusers.DDIMScheduler.from_config(config).alphas_cumprod.numpy()
    np.testing.assert_allclose(NoiseSchedule.from_config(config).alphas_cumprod, expected, rtol=2e-5)

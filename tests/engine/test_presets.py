"""Presets against the figures of the model cards, typed off by hand, and against diffusers' own run of them."""

import importlib
from typing import Any

import numpy as np
import pytest

from lorablend.adapters.errors import RequestError
from lorablend.engine.presets import PRESETS, find_preset
from lorablend.engine.schedulers import NoiseSchedule, Plan, plan
from tests.adapter_files import message_of

SDXL = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}

HF = "https://huggingface.co/"
# steps, guidance, scheduler, spacing, source
EXPECTED = {
    "lcm": (4, 1, "lcm", "trailing", f"{HF}latent-consistency/lcm-lora-sdxl"),
    "tcd": (4, 0, "tcd", "trailing", f"{HF}h1t/TCD-SDXL-LoRA"),
    "hyper-1": (1, 0, "tcd", "trailing", f"{HF}ByteDance/Hyper-SD"),
    "hyper-2": (2, 0, "ddim", "trailing", f"{HF}ByteDance/Hyper-SD"),
    "hyper-4": (4, 0, "ddim", "trailing", f"{HF}ByteDance/Hyper-SD"),
    "hyper-8": (8, 0, "ddim", "trailing", f"{HF}ByteDance/Hyper-SD"),
    "lightning-2": (2, 0, "euler", "trailing", f"{HF}ByteDance/SDXL-Lightning"),
    "lightning-4": (4, 0, "euler", "trailing", f"{HF}ByteDance/SDXL-Lightning"),
    "lightning-8": (8, 0, "euler", "trailing", f"{HF}ByteDance/SDXL-Lightning"),
    "dmd2": (4, 0, "lcm", "trailing", f"{HF}tianweiy/DMD2"),
    "turbo": (1, 0, "euler_a", "trailing", f"{HF}stabilityai/sdxl-turbo"),
    "quality": (30, 6, "dpmpp_2m", "karras", ""),
}
# The scheduler class of the card's example, with what it changes in the model's own config.
CARDS = {
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "hyper-1": ("TCDScheduler", {}),
    "hyper-2": ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    "hyper-4": ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    "hyper-8": ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    "lightning-2": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "lightning-4": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "lightning-8": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "dmd2": ("LCMScheduler", {}),
    "turbo": ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}),
}


@pytest.mark.parametrize("name", PRESETS)
def test_figures(name: str) -> None:
    preset = find_preset(name)
    figures = (preset.steps, preset.guidance_scale, preset.scheduler, preset.spacing)
    assert (*figures, preset.source) == EXPECTED[name]
    assert preset.timesteps == ((999, 749, 499, 249) if name == "dmd2" else None)


def planned(name: str) -> Plan:
    """The plan of a preset's settings."""
    settings = PRESETS[name].settings()
    del settings["guidance_scale"]
    steps = settings.pop("steps", None) or len(settings["timesteps"])
    return plan(settings.pop("scheduler"), steps, NoiseSchedule.from_config(SDXL), **settings)


@pytest.mark.parametrize("name", PRESETS)
def test_the_planner_takes_them(name: str) -> None:
    run = planned(name)
    assert len(run) == PRESETS[name].steps
    assert run.spacing == (None if name == "dmd2" else PRESETS[name].spacing)


@pytest.mark.parametrize(
    ("name", "own", "expected"),
    [
        ("lcm", {}, {"steps": 4, "spacing": "trailing"}),
        ("lcm", {"steps": 8}, {"steps": 8, "spacing": "trailing"}),
        ("lcm", {"timesteps": (999, 499)}, {"timesteps": (999, 499)}),
        ("dmd2", {}, {"timesteps": (999, 749, 499, 249)}),
        ("dmd2", {"timesteps": (999, 499)}, {"timesteps": (999, 499)}),
        ("dmd2", {"steps": 8}, {"steps": 8, "spacing": "trailing"}),
        ("dmd2", {"spacing": "trailing"}, {"steps": 4, "spacing": "trailing"}),
        ("dmd2", {"scheduler": "tcd"}, {"timesteps": (999, 749, 499, 249), "scheduler": "tcd"}),
        ("dmd2", {"steps": 8, "timesteps": (999,)}, {"steps": 8, "timesteps": (999,)}),
    ],
)
def test_what_the_caller_says_wins(name: str, own: dict[str, Any], expected: dict[str, Any]) -> None:
    settings = PRESETS[name].settings(own)
    preset = {"guidance_scale": PRESETS[name].guidance_scale, "scheduler": PRESETS[name].scheduler}
    assert settings == preset | expected


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers and numpy 2
@pytest.mark.parametrize("name", CARDS)
def test_the_model_is_told_the_timesteps_of_the_authors_example(name: str) -> None:
    """In diffusers' own classes, made as the card makes them."""
    diffusers = importlib.import_module("diffusers")
    preset, (class_name, change) = PRESETS[name], CARDS[name]
    theirs = getattr(diffusers, class_name).from_config(SDXL | change)
    if name == "dmd2":
        theirs.set_timesteps(timesteps=[999, 749, 499, 249])
    else:
        theirs.set_timesteps(preset.steps)
    assert np.array_equal(planned(name).timesteps, theirs.timesteps.numpy())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lightening-4", 'no preset "lightening-4"; did you mean "lightning-4"?'),
        ("LCM ", 'no preset "LCM "; did you mean "lcm"?'),
        (
            "?",
            'no preset "?"; choose from lcm, tcd, hyper-1, hyper-2, hyper-4, hyper-8, lightning-2, lightning-4, '
            "lightning-8, dmd2, turbo, quality",
        ),
    ],
)
def test_unknown(name: str, message: str) -> None:
    assert message_of(RequestError, lambda: find_preset(name)) == message

"""Names of samplers and schedules, by many programs."""

from __future__ import annotations

import pytest

from lorablend.app.pictures.metadata.found import Found


@pytest.mark.parametrize(
    ("sampler", "schedule", "scheduler", "spacing", "missing"),
    [
        ("Euler a", None, "euler_a", None, ""),
        ("DPM++ 2M Karras", None, "dpmpp_2m", "karras", ""),
        ("DPM++ 2M", "Karras", "dpmpp_2m", "karras", ""),
        ("DPM++ 2M", "Automatic", "dpmpp_2m", None, ""),
        ("DPM++ 2M Karras", "automatic", "dpmpp_2m", "karras", ""),
        ("dpmpp_2m_k", None, "dpmpp_2m", "karras", ""),  # InvokeAI
        ("dpmpp_2m_sde_k", None, "dpmpp_2m_sde", "karras", ""),
        ("unipc", None, "unipc", None, ""),
        ("k_euler_ancestral", "native", "euler_a", None, ""),  # NovelAI
        ("ddim_v3", None, "ddim", None, ""),
        ("k_dpmpp_2m", "exponential", "dpmpp_2m", "exponential", ""),
        ("Euler A Trailing", None, "euler_a", "trailing", ""),  # Draw Things
        ("Euler Ancestral", None, "euler_a", None, ""),
        ("dpmpp_2m_sgm_uniform", None, "dpmpp_2m", "trailing", ""),  # savers of ComfyUI
        ("euler_normal", None, "euler", "linspace", ""),
        ("euler_simple", None, "euler", None, "the schedule type simple is not here; the model's own is used"),
        ("DPM++ 2M", "Beta", "dpmpp_2m", None, "the schedule type Beta is not here; the model's own is used"),
        ("DPM++ 2M SDE Heun", None, None, None, "the sampler DPM++ 2M SDE Heun is not here; the model's own is used"),
        ("Heun Karras", None, None, "karras", "the sampler Heun Karras is not here; the model's own is used"),
        ("k_heun", None, None, None, "the sampler k_heun is not here; the model's own is used"),
        (None, "karras", None, "karras", ""),
        (3, 4, None, None, ""),
    ],
)
def test_names(sampler: object, schedule: object, scheduler: str | None, spacing: str | None, missing: str) -> None:
    found = Found("")
    found.take_sampler(sampler, schedule)
    assert (found.settings.get("scheduler"), found.settings.get("spacing")) == (scheduler, spacing)
    assert found.missing == ([missing] if missing else [])

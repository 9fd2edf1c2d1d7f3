"""Pipelines, reference pictures and adapters that several engine tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lorablend.engine import Pipeline
from tests.engine import reference

STEPS = 4


@pytest.fixture(scope="session")
def latents() -> np.ndarray:
    """Starting noise of one 64×64 picture."""
    return np.random.default_rng(42).standard_normal((1, 4, 8, 8), dtype=np.float32)


@pytest.fixture(scope="session")
def lora_dir(sdxl_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters for the SDXL-shaped model, saved by diffusers and PEFT: kohya, peft and kohya_text.safetensors."""
    folder = tmp_path_factory.mktemp("adapters")
    save = reference.save_adapter
    save(sdxl_source, folder / "kohya.safetensors", seed=1, rank=4, alpha=2, kohya=True, text=False)
    save(sdxl_source, folder / "peft.safetensors", seed=2, rank=3, alpha=6, kohya=False, text=True)
    save(sdxl_source, folder / "kohya_text.safetensors", seed=3, rank=5, alpha=10, kohya=True, text=True)
    return folder


@pytest.fixture(scope="session")
def make_pipeline(
    sdxl_model: Path, lora_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Pipeline]:
    """A new pipeline on the SDXL-shaped model, f32 unless said otherwise."""
    cache = tmp_path_factory.mktemp("cache")

    def make(model: Path = sdxl_model, **kwargs: object) -> Pipeline:
        return Pipeline(model, **({"precision": "f32", "lora_dir": lora_dir, "cache_dir": cache} | kwargs))  # pyright: ignore[reportArgumentType]

    return make


@pytest.fixture(scope="session")
def pipeline(make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    """One live pipeline for all tests that do not mind what was drawn before."""
    return make_pipeline()

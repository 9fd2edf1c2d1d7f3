"""Compiled graphs and their cache on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters.errors import ModelError
from lorablend.engine import Pipeline
from tests.adapter_files import random_factors, write_kohya


def drawn(model: Path, cache: Path, **options: Any) -> np.ndarray:
    pipe = Pipeline(model, cache_dir=cache, **options)
    return np.asarray(pipe.generate("a fox", steps=2, width=64, height=64, seed=3).images[0])


@pytest.mark.parametrize("runtime", ["live", "genai"])
def test_one_precision_does_not_draw_with_what_another_compiled(sdxl_model: Path, tmp_path: Path, runtime: str) -> None:
    """OpenVINO's cache does not tell a CPU graph's precisions apart, unless something else does."""
    alone = drawn(sdxl_model, tmp_path / "alone", runtime=runtime)
    exact = drawn(sdxl_model, tmp_path / "shared", runtime=runtime, precision="f32")
    for _ in range(2):
        assert np.array_equal(drawn(sdxl_model, tmp_path / "shared", runtime=runtime), alone)
        assert np.array_equal(drawn(sdxl_model, tmp_path / "shared", runtime=runtime, precision="f32"), exact)


def test_numbers_that_overflow_are_no_picture(sdxl_model: Path, tmp_path: Path) -> None:
    shapes = {("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"): (128, 128)}
    write_kohya(tmp_path / "ink.safetensors", random_factors(shapes))
    pipe = Pipeline(sdxl_model, cache_dir=tmp_path / "cache")
    with pytest.raises(
        ModelError, match=r"no picture was drawn: numbers in the UNet of .* overflow; use precision f32"
    ):
        pipe.generate("a fox", blend=[(tmp_path / "ink.safetensors", 1e38)], steps=1, width=64, height=64)
    assert np.asarray(pipe.generate("a fox", steps=1, width=64, height=64).images[0]).any()

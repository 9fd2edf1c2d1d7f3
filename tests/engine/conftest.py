"""Pipelines, reference pictures and adapters that several engine tests share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lorablend.engine import Pipeline
from tests.engine import reference


@pytest.fixture(scope="session")
def latents() -> np.ndarray:
    """The starting noise of one 64×64 picture."""
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
def sdxl_forms(sdxl_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The SDXL-shaped model with the networks that adapters change in every form that Optimum and NNCF store.

    The 8-bit forms leave out the up blocks, because NNCF takes 25 ms for each shape.
    """
    import nncf
    import openvino as ov

    rest = nncf.IgnoredScope(patterns=[r".*\.up_blocks\..*"], validate=False)  # text encoders have none
    folders = {"fp32": sdxl_model}
    for form in ("fp16", "int8_sym", "int8_asym"):
        folders[form] = tmp_path_factory.mktemp(form) / "model"
        shutil.copytree(sdxl_model, folders[form])
        for name in ("unet", "text_encoder", "text_encoder_2"):
            model = ov.Core().read_model(sdxl_model / name / "openvino_model.xml")
            if form != "fp16":
                model = nncf.compress_weights(
                    model, mode=getattr(nncf.CompressWeightsMode, form.upper()), ignored_scope=rest
                )
            ov.save_model(model, folders[form] / name / "openvino_model.xml", compress_to_fp16=form == "fp16")
    return folders


@pytest.fixture(scope="session")
def make_pipeline(sdxl_model: Path, lora_dir: Path) -> Callable[..., Pipeline]:
    """Makes a new pipeline on the SDXL-shaped model, in f32 by default."""

    def make(model: Path = sdxl_model, **kwargs: object) -> Pipeline:
        return Pipeline(model, **({"precision": "f32", "lora_dir": lora_dir} | kwargs))  # pyright: ignore[reportArgumentType]

    return make


@pytest.fixture(scope="session")
def pipeline(make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    """One live pipeline for all tests that do not depend on what was drawn before."""
    return make_pipeline()

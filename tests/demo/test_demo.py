"""The model and adapters that are shipped: small, clean, and a picture that shows what a blend does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lorablend.adapters import load_adapter
from lorablend.demo import adapters_dir, model_dir
from lorablend.engine import ModelFolder, Pipeline
from lorablend.engine.ir import Ir

ADAPTERS = sorted(adapters_dir().glob("*.safetensors"))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(model_dir(), lora_dir=adapters_dir(), cache_dir=tmp_path_factory.mktemp("cache"))


def picture(
    pipeline: Pipeline, prompt: str = "a fox in the snow", *, seed: int = 1, adapter: Path | None = None
) -> np.ndarray:
    """[256, 256, 3], 0..255."""
    result = pipeline.generate(prompt, seed=seed, steps=8, blend=[(adapter, 0.8)] if adapter else [])
    return np.asarray(result.images[0], np.float32)


def test_model() -> None:
    model = ModelFolder(model_dir())
    assert (model.family, model.default_size) == ("sdxl", (256, 256))
    assert sum(file.stat().st_size for file in model_dir().rglob("*")) < 6e6


def test_no_path_or_date() -> None:
    for file in model_dir().rglob("*"):
        if file.suffix in (".json", ".xml"):
            content = file.read_text(encoding="utf-8")
            assert not [word for word in ("/tmp", "/home", "/root", "_name_or_path", "20:") if word in content], file
    assert not (model_dir() / "lorablend.json").exists()


def test_readme_says_what_it_is() -> None:
    assert "**random weights**" in (model_dir().parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", ADAPTERS, ids=lambda file: file.stem)
def test_adapter(file: Path) -> None:
    assert file.stat().st_size < 200_000
    adapter = load_adapter(file)
    assert adapter.base_model == "sdxl"
    for delta in adapter.deltas.values():
        assert delta.alpha not in (None, delta.rank)


def test_kohya_and_peft_keys() -> None:
    kinds = {key.rpartition("lora_")[2] for file in ADAPTERS for key in load_file(file)}
    assert {"down.weight", "up.weight", "A.weight", "B.weight"} <= kinds


def test_picture_is_colourful(pipeline: Pipeline) -> None:
    pixels = picture(pipeline)
    assert pixels.shape == (256, 256, 3)
    assert pixels.std(axis=(0, 1)).mean() > 30  # light and dark
    assert pixels.std(axis=2).mean() > 30  # colours
    assert np.abs(np.diff(pixels, axis=0)).mean() < 8  # patches, no noise


def test_prompt_and_seed_change_it(pipeline: Pipeline) -> None:
    base = picture(pipeline)
    assert np.abs(picture(pipeline, "a castle at night") - base).mean() > 20
    assert np.abs(picture(pipeline, seed=2) - base).mean() > 20


@pytest.mark.parametrize("file", ADAPTERS, ids=lambda file: file.stem)
def test_adapters_change_it(pipeline: Pipeline, file: Path) -> None:
    assert np.abs(picture(pipeline, adapter=file) - picture(pipeline)).mean() > 20


@pytest.mark.slow
def test_script_writes_what_is_shipped(tmp_path: Path) -> None:
    from lorablend.demo.make_model import main

    main(tmp_path)
    for file in ADAPTERS:  # numpy alone draws these
        same = (tmp_path / "adapters" / file.name).read_bytes() == file.read_bytes()
        assert same, file
    for xml in model_dir().glob("*/openvino_model.xml"):
        ours, again = Ir(xml), Ir(tmp_path / xml.relative_to(model_dir().parent))
        assert ours.shapes == again.shapes
        for path in ours.shapes:
            # Not to the byte: other processors draw and scale weights with other roundings before they become f16.
            assert np.allclose(ours.read(path), again.read(path), rtol=1e-2, atol=1e-3), f"{xml.parent.name} {path}"

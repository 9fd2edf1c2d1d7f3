"""Samples during training: drawn by the engine, the same every time, on a base model that is converted once."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

from lorablend.adapters.errors import Cancelled, ResourceError
from lorablend.engine import ModelFolder, Pipeline
from lorablend.engine.disk_cache import default_cache_dir
from lorablend.train.base import find_base
from lorablend.train.samples import Sampler, choose_prompts, convert_base, openvino_folder
from lorablend.train.text import cut_texts
from tests.engine.reference import levels_apart
from tests.train.trained import config, dataset, trained, write

PROMPTS = ("a fox in the snow", "the cat")


@pytest.fixture(scope="module")
def adapter(sdxl_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, network = trained(sdxl_source)
    return write(tmp_path_factory.mktemp("adapter") / "x.safetensors", network)


def test_a_grid_has_base_and_adapter_side_by_side(sdxl_model: Path, adapter: Path, tmp_path: Path) -> None:
    sampler = Sampler(sdxl_model, PROMPTS, seed=5, steps=3, precision="f32")
    sampler.grid(adapter, tmp_path / "a" / "grid.png", "step 10")
    sampler.grid(adapter, tmp_path / "grid.png", "step 10")
    assert (tmp_path / "grid.png").read_bytes() == (tmp_path / "a" / "grid.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "grid.png"]

    pipeline = Pipeline(sdxl_model, precision="f32")
    with Image.open(tmp_path / "grid.png") as image:
        grid = np.array(image.convert("RGB")).astype(int)
    for row, prompt in enumerate(PROMPTS):
        for column, blend in enumerate(([], [(str(adapter), 1.0)])):
            tile = np.array(pipeline.generate(prompt, blend=blend, seed=5 + row, steps=3).images[0])
            assert contains(grid, tile, left=10 + column * 74), (row, column)
    label = grid[10:28, 84:148]
    assert label.min() < 100, "the column has no label"


def contains(grid: np.ndarray, tile: np.ndarray, left: int) -> bool:
    places = range(grid.shape[0] - len(tile) + 1)
    return any(levels_apart(grid[top : top + len(tile), left : left + tile.shape[1]], tile) == 0 for top in places)


def test_differs(sdxl_model: Path, sdxl_source: Path, adapter: Path, tmp_path: Path) -> None:
    sampler = Sampler(sdxl_model, (), precision="f32")
    assert sampler.differs(adapter)
    _, nothing = trained(sdxl_source, size=0.0)
    assert not sampler.differs(write(tmp_path / "nothing.safetensors", nothing))


def test_stop(sdxl_model: Path, adapter: Path, tmp_path: Path) -> None:
    asked: list[bool] = []
    sampler = Sampler(sdxl_model, PROMPTS, precision="f32", stop=lambda: asked.append(True) or len(asked) == 2)
    with pytest.raises(Cancelled):
        sampler.grid(adapter, tmp_path / "grid.png", "step 10")
    assert len(asked) == 2
    assert not list(tmp_path.iterdir())


def test_converted_once(sdxl_source: Path, sdxl_fp16: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = find_base(str(sdxl_source))
    said: list[str] = []
    assert sdxl_fp16 == openvino_folder(base) == convert_base(base, said.append)
    assert said == []
    assert default_cache_dir() in sdxl_fp16.parents
    assert ModelFolder(sdxl_fp16).family == "sdxl"
    assert json.loads((sdxl_fp16 / "lorablend.json").read_text())["weights"] == "fp16"

    monkeypatch.setenv("LORABLEND_CACHE", str(tmp_path))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=0))  # before anything is loaded
    with pytest.raises(ResourceError):
        convert_base(base, said.append)
    assert said == [
        "sdxl_source is converted to OpenVINO, once, to draw samples with; a large model takes some minutes"
    ]
    assert not openvino_folder(base).exists()


def test_prompts() -> None:
    data = dataset("a", "b", "c", "d", "e", "f", trigger="zxc")
    assert choose_prompts(config(validation_prompts=("mine",)), data) == ("mine",)
    assert choose_prompts(config(), data) == ("zxc, a", "zxc, c", "zxc, e")
    assert choose_prompts(config(), dataset("same", "same")) == ("same",)
    assert choose_prompts(config(), dataset("")) == ("",)
    assert choose_prompts(config(), dataset("a fox <lora:ink:0.8>, snow", "<lora:")) == ("a fox , snow", "")


def test_texts_that_are_cut(sdxl_source: Path) -> None:
    """The model sees 75 tokens, here one per word, without the start and end tokens."""
    tokenizers = [AutoTokenizer.from_pretrained(sdxl_source / name) for name in ("tokenizer", "tokenizer_2")]
    fits, cut = " ".join(["fox"] * 75), " ".join(["fox"] * 76)
    assert cut_texts(tokenizers, ["", fits, cut]) == (75, {cut})

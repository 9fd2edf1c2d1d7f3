"""Fixtures of the training tests: pictures, a small training."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lorablend.train import train as lorablend_train
from tests.train.data.data_files import save
from tests.train.trainings import STEPS


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for pictures; the test has its own cache, so that it can look into it."""
    monkeypatch.setenv("LORABLEND_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of two shapes with captions."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(5):
        save(folder / f"{number}.png", number, (96, 64) if number == 3 else (64, 64), f"a fox, tag {number}, the snow")
    return folder


@pytest.fixture
def settings(pictures: Path, sdxl_source: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings for four steps of two pictures, without samples, which would take longest."""
    return {
        "data": pictures,
        "model": str(sdxl_source),
        "out": tmp_path / "ink.safetensors",
        "rank": 2,
        "steps": STEPS,
        "batch": 2,
        "learning_rate": 1e-3,
        "precision": "f32",
        "checkpoints": 2,
        "sample_every": 0,
    }


@pytest.fixture
def train(sdxl_model: Path) -> Any:
    """`lorablend.train.train` with a model that is converted already."""
    return partial(lorablend_train, openvino=sdxl_model)

"""Small pictures for the data set tests, each number with its own smooth pattern, and views of what was read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lorablend.train.data.examples import Example
from lorablend.train.data.layouts import DataSet


def pattern(number: int, size: tuple[int, int] = (96, 96)) -> Image.Image:
    """Waves in three colours, without noise, unlike those of any other number."""
    numbers = np.random.default_rng(number).uniform(1, 5, (3, 3))
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    waves = [np.sin(6.28 * (a * x + 3 * c)) * np.cos(6.28 * (b * y + c)) for a, b, c in numbers]
    return Image.fromarray(((np.stack(waves, -1) + 1) * 127.5).round().astype(np.uint8))


def save(path: Path, number: int = 0, size: tuple[int, int] = (96, 96), caption: str | None = None, **how: Any) -> Path:
    """Write a pattern to `path`, and next to it a .txt file if there is a caption."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pattern(number, size).save(path, **how)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def by_name(dataset: DataSet) -> dict[str, Example]:
    return {dataset.name(example.path): example for example in dataset.examples}


def captions(dataset: DataSet) -> dict[str, tuple[str, ...]]:
    return {name: example.captions for name, example in by_name(dataset).items()}


def clean(dataset: DataSet) -> DataSet:
    assert dataset.problems == ()
    return dataset

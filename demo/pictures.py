"""Drawn pictures for the training of the demo model, as memory-mapped arrays on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from lorablend.adapters.files.atomic import atomic_write
from lorablend.demo.drawing import draw
from lorablend.demo.grammar import N_SCENES, Scene, held_out, scene_at
from lorablend.demo.styles import STYLES, UNSEEN_STYLES

__all__ = ["TAUGHT_STYLES", "draw_all", "held_out_scenes", "training_scenes"]

# The styles that the model's VAE is trained on. The others are for trying the trainer on something new.
TAUGHT_STYLES = tuple(name for name in STYLES if name not in UNSEEN_STYLES)


def training_scenes(count: int, seed: int) -> list[Scene]:
    """Random scenes, none of them held out."""
    return _scenes(count, seed, held=False)


def held_out_scenes(count: int, seed: int) -> list[Scene]:
    """Random scenes whose object, colour and position never occur together in a training picture."""
    return _scenes(count, seed, held=True)


def _scenes(count: int, seed: int, *, held: bool) -> list[Scene]:
    order = np.random.default_rng(seed).permutation(N_SCENES)
    wanted = [scene for index in order if held_out(scene := scene_at(int(index))) == held]
    return [wanted[i % len(wanted)] for i in range(count)]


def draw_all(path: Path, scenes: Sequence[Scene], styles: Sequence[str | None], size: int) -> np.ndarray:
    """Map the pictures at `path`, uint8 [scenes, size, size, 3]; draw them if the file does not exist.

    Picture i has seed i and style i of `styles`, which repeat.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        repeated = [styles[i % len(styles)] for i in range(len(scenes))]
        with atomic_write(path) as part:
            pictures = np.lib.format.open_memmap(part, "w+", np.uint8, (len(scenes), size, size, 3))
            with ProcessPoolExecutor(os.cpu_count()) as pool:
                drawn = pool.map(partial(_draw, size), scenes, range(len(scenes)), repeated, chunksize=50)
                for i, picture in enumerate(drawn):
                    pictures[i] = picture
            pictures.flush()
            del pictures
    return np.load(path, mmap_mode="r")


def _draw(size: int, scene: Scene, seed: int, style: str | None) -> np.ndarray:
    return np.asarray(draw(scene, seed, size, style))

"""Drawn pictures on disk for the training of the demo model: arrays that are mapped, not read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from lorablend.demo.drawing import draw
from lorablend.demo.grammar import N_SCENES, Scene, held_out, scene_at
from lorablend.demo.styles import STYLES, UNSEEN_STYLES

__all__ = ["TAUGHT_STYLES", "draw_all", "held_out_scenes", "training_scenes"]

# The styles that the model's VAE sees. The others are for trying the trainer on something new.
TAUGHT_STYLES = tuple(name for name in STYLES if name not in UNSEEN_STYLES)


def training_scenes(count: int, seed: int) -> list[Scene]:
    """Scenes at random, none of them held out."""
    return _scenes(count, seed, held=False)


def held_out_scenes(count: int, seed: int) -> list[Scene]:
    """Different scenes at random whose object, colour and position are never together in a training picture."""
    return _scenes(count, seed, held=True)


def _scenes(count: int, seed: int, *, held: bool) -> list[Scene]:
    order = np.random.default_rng(seed).permutation(N_SCENES)
    wanted = [scene for index in order if held_out(scene := scene_at(int(index))) == held]
    return [wanted[i % len(wanted)] for i in range(count)]


def draw_all(path: Path, scenes: Sequence[Scene], styles: Sequence[str | None], size: int) -> np.ndarray:
    """uint8 [scenes, size, size, 3], mapped from `path`, which is drawn if it is not there.

    Picture i has seed i, and the style number i of `styles`, which repeat.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        pictures = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(scenes), size, size, 3))
        of_each = [styles[i % len(styles)] for i in range(len(scenes))]
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            drawn = pool.map(partial(_draw, size), scenes, range(len(scenes)), of_each, chunksize=50)
            for i, picture in enumerate(drawn):
                pictures[i] = picture
        pictures.flush()
        del pictures
        os.replace(temporary, path)
    return np.load(path, mmap_mode="r")


def _draw(size: int, scene: Scene, seed: int, style: str | None) -> np.ndarray:
    return np.asarray(draw(scene, seed, size, style))

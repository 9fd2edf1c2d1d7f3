"""Mosaic: small stones of one colour each in dark grout, laid in a different direction in each thing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorablend.demo.canvas import Layer, paint
from lorablend.demo.styles.marks import (
    Array,
    bare,
    grid,
    is_object,
    lines,
    mix,
    noise,
    object_mask,
    regions,
    saturate,
    unit,
)

_GROUT = np.array([0.33, 0.30, 0.29], np.float32)
_STONE, _OBJECT_STONE = 10.0, 8.0  # units per side


def mosaic(layers: Sequence[Layer], seed: int) -> Array:
    random = np.random.default_rng([7, seed])
    layers = bare(layers)
    size, scale = layers[0].mask.shape[0], unit(layers)
    seen, body = regions(layers, ("scenery", "stars")), object_mask(layers) > 0.5
    x, y = grid(size)
    stone = np.where(body, np.float32(_OBJECT_STONE), np.float32(_STONE))
    wave = np.where(body, np.float32(0), 12 * noise(random, size, 70))
    tones = random.uniform(0.78, 1.12, 997).astype(np.float32)
    tints = random.normal(0, 0.03, (997, 3)).astype(np.float32)
    # Drawn last, for their number is that of the layers, and the backdrop must not depend on the object.
    turn = random.uniform(-0.25, 0.25, len(layers)).astype(np.float32)
    turn[[is_object(layer) for layer in layers]] = 0.8  # one direction for all of the object
    turn = turn[seen]
    along = (np.cos(turn) * x + np.sin(turn) * y + wave) / stone + 64
    across = (np.cos(turn) * y - np.sin(turn) * x + wave) / stone + 64
    row = np.floor(across)
    along = along + 0.5 * (row % 2)
    column = np.floor(along)
    gap = np.maximum(np.abs(along - column - 0.5), np.abs(across - row - 0.5))
    grout = np.clip((gap - 0.5) * stone * scale + 1.5 * scale, 0, 1)

    key = (row * 131 + column * 17 + seen * 7).astype(np.intp) % 997
    tone = tones[key]
    stones = saturate(paint(layers), 1.6) * np.where(body, 0.5 + 0.5 * tone, tone)[..., None]
    stones = stones + tints[key]
    edge = np.maximum(0.7 * lines(np.where(body, -1, seen), 1.5 * scale), lines(body.astype(np.intp), 2 * scale))
    return np.clip(
        mix(stones, _GROUT, np.maximum(np.where(body, np.float32(0.75), np.float32(0.9)) * grout, edge)), 0, 1
    )

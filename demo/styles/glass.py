"""Stained glass: bright shards in lead, with heavier lead around each thing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lorablend.demo.canvas import Layer, paint
from lorablend.demo.styles.marks import Array, bare, blur, grid, lines, mix, noise, object_mask, regions, saturate, unit

_LEAD = np.array([0.05, 0.05, 0.07], np.float32)
_STEP = 38.0  # units between the shards' centres
_ACROSS = int(256 / _STEP) + 4  # centres per row, including those outside the picture


def glass(layers: Sequence[Layer], seed: int) -> Array:
    random = np.random.default_rng([3, seed])
    layers = bare(layers)
    size, scale = layers[0].mask.shape[0], unit(layers)
    body = object_mask(layers) > 0.5
    shard = _shards(random, size)
    seen = regions(layers, ("scenery", "stars"))
    piece = seen * _ACROSS**2 + np.where(body, 0, shard)

    tone = random.uniform(0.75, 1.25, _ACROSS**2).astype(np.float32)[shard]
    light = saturate(paint(layers), np.where(body, 1.35, 2.0)[..., None]) * np.where(body, 1.08, tone)[..., None]
    light = light * (0.84 + 0.32 * noise(random, size, 12))[..., None]
    lead = lines(np.where(body, 0, piece), 2.8 * scale) * ~body + 0.6 * lines(np.where(body, piece, 0), 1.4 * scale)
    heavy = lines(body.astype(np.intp), 3.6 * scale)
    light = mix(np.clip(light, 0, 1), _LEAD, np.clip(np.maximum(lead, heavy), 0, 1))
    return np.clip(light + 0.18 * blur(light, 4 * scale), 0, 1)


def _shards(random: np.random.Generator, size: int) -> NDArray[np.intp]:
    """For each pixel the number of the nearest jittered centre."""
    x, y = grid(size)
    jitter = random.uniform(-0.42, 0.42, (_ACROSS, _ACROSS, 2)).astype(np.float32)
    column, row = (x / _STEP).astype(np.intp) + 1, (y / _STEP).astype(np.intp) + 1
    best, shard = np.full(x.shape, np.inf, np.float32), np.zeros(x.shape, np.intp)
    for down in (-1, 0, 1):
        for along in (-1, 0, 1):
            r, c = row + down, column + along
            away = jitter[r, c]
            distance = ((c - 0.5 + away[..., 0]) * _STEP - x) ** 2 + ((r - 0.5 + away[..., 1]) * _STEP - y) ** 2
            nearer = distance < best
            best = np.where(nearer, distance, best)
            shard = np.where(nearer, r * _ACROSS + c, shard)
    return shard

"""Knitted: rows of V-shaped stitches, each of one colour of wool."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorablend.demo.canvas import Layer
from lorablend.demo.styles.marks import Array, bare, cells, grid, saturate

_STITCHES = 32  # per side


def knit(layers: Sequence[Layer], seed: int) -> Array:
    random = np.random.default_rng([11, seed])
    size = layers[0].mask.shape[0]
    width = 256 / _STITCHES
    x, y = grid(size)
    column = (x / width).astype(np.intp)
    side = np.abs((x / width) % 1 - 0.5) * 2  # 0 in the middle of a stitch, 1 at its sides
    slant = y / width + 0.55 * side  # a V: its arms rise to the sides
    row = np.clip(np.floor(slant).astype(np.intp), 0, _STITCHES)

    wool, body = cells(bare(layers), _STITCHES)
    wool = wool * np.where(body, 1.0, 0.86)[..., None]
    wool = saturate(np.concatenate([wool, wool[-1:]]), 1.3)
    wool = wool * (1 + 0.1 * (random.random((*wool.shape[:2], 1), np.float32) - 0.5))
    across = np.abs(slant - row - 0.5) * 2
    arm = np.sqrt(np.clip(1 - across**2, 0, 1)) * (0.65 + 0.35 * np.sin(np.pi * np.clip(side, 0.02, 0.98)))
    return np.clip(wool[row, column] * (0.45 + 0.75 * arm)[..., None] + 0.03, 0, 1).astype(np.float32)

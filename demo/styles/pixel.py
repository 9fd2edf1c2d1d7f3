"""Pixel art: big square pixels, few colours, a dark outline around the object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorablend.demo.canvas import Layer
from lorablend.demo.styles.marks import Array, bare, cells, grey, saturate

_CELLS = 64  # per side
_LEVELS = 9  # of brightness
_CHECKER = np.indices((_CELLS, _CELLS)).sum(0)[..., None] % 2 - 0.5


def pixel(layers: Sequence[Layer], seed: int) -> Array:
    """Draw the style, in which nothing is random."""
    size = layers[0].mask.shape[0]
    small, body = cells(bare(layers), _CELLS)
    small = saturate(small, 1.3)
    # Brightness has steps; a checkerboard only where it is nearly half-way between two of them.
    bright = np.maximum(grey(small), 0.02)[..., None]
    level = np.rint(bright * (_LEVELS - 1) + np.where(body[..., None], 0, 0.25 * _CHECKER)) / (_LEVELS - 1)
    small = np.clip(small * np.maximum(level, 0.5 / _LEVELS) / bright, 0, 1)

    grown = body.copy()
    grown[1:] |= body[:-1]
    grown[:-1] |= body[1:]
    grown[:, 1:] |= body[:, :-1]
    grown[:, :-1] |= body[:, 1:]
    small[grown & ~body] = (0.08, 0.06, 0.14)
    at = np.arange(size) * _CELLS // size
    return small[at][:, at].astype(np.float32)

"""Pencil: graphite hatching that follows the tone, outlines drawn twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorablend.demo.canvas import Layer, paint
from lorablend.demo.styles.marks import (
    Array,
    bare,
    bend,
    grey,
    grid,
    lines,
    mix,
    noise,
    object_mask,
    regions,
    soft_step,
    take,
    unit,
)

_PAPER = np.array([0.95, 0.945, 0.93], np.float32)
_LEAD = np.array([0.17, 0.17, 0.19], np.float32)


def pencil(layers: Sequence[Layer], seed: int) -> Array:
    random = np.random.default_rng([5, seed])
    layers = bare(layers)
    size, scale = layers[0].mask.shape[0], unit(layers)
    x, y = grid(size)
    seen, body = regions(layers), object_mask(layers)
    dark = np.clip(1.1 * (1 - grey(paint(layers))), 0, 1)

    wave = 8 * noise(random, size, 30)
    rest = 1 - body
    first = 0.5 * rest * _strokes(x + y + wave, 8, np.clip(1.6 * dark - 0.2, 0, 0.8))
    second = 0.5 * rest * _strokes(x - y + wave, 9, np.clip(1.8 * dark - 0.75, 0, 0.8))
    thing = body * (0.06 + 0.62 * _strokes(y - 0.5 * x + wave, 7, 0.12 + 0.6 * dark))
    shade = np.maximum(np.maximum(first, second), thing) * (0.65 + 0.5 * noise(random, size, 10))
    canvas = mix(np.broadcast_to(_PAPER, (size, size, 3)), _LEAD, np.clip(shade, 0, 1))
    outline = np.maximum((0.5 + 0.4 * body) * lines(seen, 1.4 * scale), lines((body > 0.5).astype(np.intp), 2 * scale))
    for _ in range(2):
        canvas = mix(canvas, _LEAD, 0.8 * take(outline, bend(random, size, 1.8, 26)))
    return np.clip(canvas, 0, 1)


def _strokes(along: Array, step: float, width: Array) -> Array:
    """Strokes at this distance, in units, that fill this fraction (0 to 1) of it."""
    return soft_step(width, np.abs((along / step) % 1 - 0.5) * 2, 0.35) * np.clip(width * 6, 0, 1)

"""Chalk: rough bright strokes on a green board."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorablend.demo.canvas import Layer, paint
from lorablend.demo.styles.marks import (
    Array,
    bare,
    bend,
    grid,
    lines,
    mix,
    noise,
    object_mask,
    regions,
    saturate,
    soft_step,
    take,
    unit,
)

_BOARD = np.array([0.12, 0.23, 0.19], np.float32)


def chalk(layers: Sequence[Layer], seed: int) -> Array:
    random = np.random.default_rng([8, seed])
    layers = bare(layers)
    size, scale = layers[0].mask.shape[0], unit(layers)
    x, y = grid(size)
    at = bend(random, size, 1.8, 16)
    seen, colour, body = take(regions(layers), at), take(paint(layers), at), take(object_mask(layers), at)
    grain, dust = noise(random, size, 4), noise(random, size, 40)
    stick = saturate(colour, 1.3)

    strokes = np.abs(((x + 0.8 * y + 6 * dust) / 10) % 1 - 0.5) * 2
    backdrop = 0.24 + 0.3 * soft_step(0.5 - strokes, 0, 0.6) * soft_step(grain, 0.35, 0.4)
    fill = 0.66 + 0.3 * soft_step(0.6 - strokes, 0, 0.6) * soft_step(grain, 0.3, 0.4)
    canvas = _BOARD * (0.85 + 0.35 * dust)[..., None]
    canvas = mix(canvas, stick, np.where(body > 0.5, fill, backdrop))
    rough = soft_step(grain, 0.28, 0.35)
    canvas = mix(canvas, 0.45 + 0.5 * colour, 0.65 * lines(np.where(body > 0.5, -1, seen), 2 * scale) * rough)
    canvas = mix(canvas, 0.15 + 0.85 * stick, 0.5 * lines(np.where(body > 0.5, seen, -1), 1.5 * scale))
    return np.clip(mix(canvas, 0.6 + 0.4 * stick, lines((body > 0.5).astype(np.intp), 2.6 * scale) * rough), 0, 1)

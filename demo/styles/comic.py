"""Comic: thick black outlines, flat bright colours, dots in the backdrop's shade."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorablend.demo.canvas import Layer, paint
from lorablend.demo.styles.marks import Array, bare, grey, grid, lines, mix, object_mask, regions, saturate, shift, unit

_INK = np.array([0.04, 0.03, 0.06], np.float32)
_DOT = 9.0  # units between the dots


def comic(layers: Sequence[Layer], seed: int) -> Array:
    random = np.random.default_rng([9, seed])
    layers = bare(layers)
    size, scale = layers[0].mask.shape[0], unit(layers)
    x, y = grid(size)
    colour, body = paint(layers), object_mask(layers)
    flat = saturate(np.clip(colour * 1.1, 0, 1), 1.7)

    start = random.uniform(0, _DOT, 2).astype(np.float32)
    u, v = (x + y + start[0]) * 0.7071, (x - y + start[1]) * 0.7071
    away = np.hypot((u / _DOT) % 1 - 0.5, (v / _DOT) % 1 - 0.5)
    radius = 0.16 + 0.3 * np.clip(1.1 - grey(colour), 0, 1)
    dots = np.clip((radius - away) * _DOT * scale + 0.5, 0, 1)
    canvas = mix(0.35 + 0.65 * flat, flat * 0.8, dots)
    canvas = mix(canvas, saturate(colour, 1.2), body)
    reach = round(5 * scale)
    shade = body * (1 - shift(body, -reach, -reach))
    canvas = canvas * (1 - 0.3 * shade[..., None])

    solid = body > 0.5
    back = lines(np.where(solid, -1, regions(layers, ("scenery", "stars"))), 2 * scale)
    canvas = mix(canvas, _INK, np.maximum(back, 0.8 * lines(np.where(solid, regions(layers), -1), 1.2 * scale)))
    return np.clip(mix(canvas, _INK, lines(solid.astype(np.intp), 3.6 * scale)), 0, 1)

"""Blueprint: pale lines on blue paper with a grid, the object hatched and measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorablend.demo.canvas import Layer, paint
from lorablend.demo.styles.marks import Array, bare, grey, grid, lines, mix, noise, object_mask, regions, unit

_PAPER = np.array([0.07, 0.22, 0.52], np.float32)
_INK = np.array([0.88, 0.95, 1.0], np.float32)


def blueprint(layers: Sequence[Layer], seed: int) -> Array:
    random = np.random.default_rng([1, seed])
    layers = bare(layers)
    size, scale = layers[0].mask.shape[0], unit(layers)
    x, y = grid(size)
    # The paper is a little darker where the scene is, as a hint of the time of day.
    tone = grey(paint(layers)) - 0.5
    canvas = _PAPER * (0.92 + 0.16 * noise(random, size, 64))[..., None] + 0.13 * tone[..., None]

    squares = 0.14 * np.maximum(_comb(x, 16, 1.0, scale), _comb(y, 16, 1.0, scale))
    squares = squares + 0.12 * np.maximum(_comb(x, 64, 1.6, scale), _comb(y, 64, 1.6, scale))
    canvas = mix(canvas, _INK, squares)

    body = object_mask(layers)
    canvas = mix(canvas, _INK, body * (0.14 + 0.32 * _comb(x + y, 10, 3.0, scale)))
    canvas = mix(canvas, _INK, 0.75 * lines(regions(layers), 1.6 * scale))
    canvas = mix(canvas, _INK, lines((body > 0.5).astype(np.intp), 3.4 * scale))
    return np.clip(mix(canvas, _INK, _dimensions(body, x, y, scale)), 0, 1)


def _comb(along: Array, step: float, width: float, scale: float) -> Array:
    """Lines of this width at this distance, in units."""
    return _line((along + step / 2) % step - step / 2, width, scale)


def _line(away: Array, width: float, scale: float) -> Array:
    """A line of this width where the distance from it is 0, antialiased."""
    return np.clip((width / 2 - np.abs(away)) * scale + 0.5, 0, 1)


def _dimensions(body: Array, x: Array, y: Array, scale: float) -> Array:
    """A dimension line under the object, with its end marks."""
    columns, rows = np.flatnonzero((body > 0.5).any(0)), np.flatnonzero((body > 0.5).any(1))
    if not len(columns):
        return np.zeros_like(body)
    left, right, foot = x[0, columns[0]], x[0, columns[-1]], min(y[rows[-1], 0] + 11, 248)
    bar = _line(y - foot, 2, scale) * (x > left) * (x < right)
    ends = _line(np.minimum(np.abs(x - left), np.abs(x - right)), 2, scale) * (np.abs(y - foot) < 5)
    return 0.9 * np.maximum(bar, ends)

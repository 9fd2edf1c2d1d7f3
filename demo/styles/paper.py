"""Paper cut-out: flat sheets with a pale cut edge, each casting a soft shadow on those behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorablend.demo.canvas import Layer
from lorablend.demo.styles.marks import Array, bare, bend, blur, mix, noise, saturate, shift, take, unit

_BANDS = 4  # sheets that make up the sky


def paper(layers: Sequence[Layer], seed: int) -> Array:
    random = np.random.default_rng([10, seed])
    layers = bare(layers)
    size, scale = layers[0].mask.shape[0], unit(layers)
    at = bend(random, size, 1.4, 14)
    canvas = np.ones((size, size, 3), np.float32)
    for mask, colour, height in _sheets(random, layers):
        if height:
            mask = take(mask, at)
            shadow = shift(blur(mask, 0.6 * height * scale), round(0.9 * height * scale), round(0.6 * height * scale))
            canvas = canvas * (1 - 0.5 * np.clip(shadow - mask, 0, 1)[..., None])
            lit = np.clip(mask - shift(mask, round(1.6 * scale), round(1.2 * scale)), 0, 1)
            colour = colour + 0.3 * lit[..., None]
        canvas = mix(canvas, colour, mask)
    return np.clip(canvas * (0.96 + 0.07 * noise(random, size, 5))[..., None], 0, 1)


def _sheets(random: np.random.Generator, layers: Sequence[Layer]) -> list[tuple[Array, Array, float]]:
    """The sheets from back to front, as (mask, colour, height above the previous one); halos and glints are flat."""
    size = layers[0].mask.shape[0]
    out = []
    sky = np.asarray(layers[0].colour, np.float32)
    if sky.ndim == 3:
        x, y = (np.arange(size, dtype=np.float32) + 0.5) / size, (np.arange(size, dtype=np.float32) + 0.5)[:, None]
        for band in range(_BANDS):
            top = band * 0.17 + 0.018 * np.sin(x * random.uniform(5, 11) + random.uniform(0, 6.3))
            mask = np.clip(y - top * size + 0.5, 0, 1) if band else np.ones((size, size), np.float32)
            tone = sky[min(size - 1, int((band + 0.5) * 0.17 * size)), 0]
            out.append((mask, saturate(tone, 1.25), 5.0 if band else 0.0))
    for layer in layers[1:] if out else layers:
        colour = saturate(np.asarray(layer.colour, np.float32).reshape(-1, 3)[:: size + 1].mean(0), 1.25)
        solid = layer.mask.max() > 0.65
        small = layer.name in ("object-detail", "scenery", "stars")
        out.append((layer.mask, colour, (2.5 if small else 6.0) if solid else 0.0))
    return out

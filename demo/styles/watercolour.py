"""Water colour: pale washes with wandering edges on white paper, darker where the pigment gathers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorablend.demo.canvas import Layer, paint
from lorablend.demo.styles.marks import (
    Array,
    bare,
    bend,
    blur,
    lines,
    mix,
    noise,
    object_mask,
    regions,
    saturate,
    take,
    unit,
)

_PAPER = np.array([0.985, 0.975, 0.945], np.float32)


def watercolour(layers: Sequence[Layer], seed: int) -> Array:
    random = np.random.default_rng([2, seed])
    layers = bare(layers)
    size, scale = layers[0].mask.shape[0], unit(layers)
    at = bend(random, size, 3.2, 20)
    body = take(object_mask(layers), at)
    sharp, seen = take(paint(layers), at), take(regions(layers, ("scenery", "stars")), at)
    colour = saturate(mix(blur(sharp, 2.2 * scale), sharp, body), 1.25)

    cloudy = noise(random, size, 44) * noise(random, size, 16)
    density = np.where(body > 0.5, 0.85, 0.55) + 0.8 * cloudy + 0.15 * noise(random, size, 8)
    density = density + 0.6 * np.clip(blur(lines(seen, 1), 2 * scale) * 2.2, 0, 1)
    wash = _PAPER * np.exp(np.log(np.clip(colour, 0.05, 1)) * density[..., None] * 0.85)
    # Where two washes meet, the paper between them stays dry in places.
    dry = lines((body > 0.5).astype(np.intp), 3 * scale) * (noise(random, size, 10) > 0.4)
    wash = mix(wash, _PAPER, 0.8 * blur(dry, 0.6 * scale))
    wash = wash * (1 - 0.35 * blur(lines((body > 0.5).astype(np.intp), 1.5 * scale), 0.8 * scale))[..., None]

    edge = np.abs(np.linspace(-1, 1, size, dtype=np.float32))
    margin = np.maximum(edge[:, None], edge[None, :]) + 0.09 * (noise(random, size, 18) - 0.5)
    return np.clip(mix(wash, _PAPER, np.clip((margin - 0.94) * 22, 0, 1)), 0, 1)

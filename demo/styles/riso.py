"""Risograph: three inks with visible grain, printed a little out of register on cream paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorablend.demo.canvas import Layer, paint
from lorablend.demo.styles.marks import Array, bare, lines, mix, noise, object_mask, regions, saturate, shift, unit

_PAPER = np.array([0.965, 0.94, 0.87], np.float32)
_INKS = np.array([[1.0, 0.87, 0.08], [1.0, 0.28, 0.66], [0.08, 0.42, 0.75]], np.float32)  # yellow, pink, blue
_UNMIX = np.linalg.inv(-np.log(_INKS)).astype(np.float32)  # from absorbances to amounts of ink
_STEPS = 5  # densities of a plate


def riso(layers: Sequence[Layer], seed: int) -> Array:
    random = np.random.default_rng([6, seed])
    layers = bare(layers)
    size, scale = layers[0].mask.shape[0], unit(layers)
    body = object_mask(layers)
    colour = paint(layers)
    colour = mix(saturate(colour, 2.0), saturate(colour, 1.2), body)
    # Each ink absorbs a fraction (Beer-Lambert), so the amounts for a colour are linear in logarithms.
    plates = -np.log(np.clip(colour, 0.04, 1)) @ _UNMIX
    plates = np.rint(np.clip(plates, 0, 1) * (_STEPS - 1)) / (_STEPS - 1)
    # The blue plate also has the drawing's lines.
    solid = body > 0.5
    inside = 0.6 * lines(np.where(solid, regions(layers), -1), 1)
    plates[..., 2] = np.maximum(plates[..., 2], np.maximum(lines(solid.astype(np.intp), 2.6 * scale), inside))

    canvas = np.broadcast_to(_PAPER, (size, size, 3)).astype(np.float32)
    turn = random.uniform(0, 2 * np.pi)
    for ink in range(3):
        angle = turn + ink * 2 * np.pi / 3
        plate = shift(plates[..., ink], round(2.6 * scale * np.sin(angle)), round(2.6 * scale * np.cos(angle)))
        grain = noise(random, size, 5) - 0.5
        # Grain is widest in the half-tones.
        plate = np.clip(plate + 1.3 * grain * plate * (1.2 - plate), 0, 1)
        canvas = canvas * np.exp(plate[..., None] * np.log(_INKS[ink]))
    return np.clip(canvas, 0, 1)

"""Neon at night: everything is dark except for glowing tubes along the edges, brightest around the object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorablend.demo.canvas import Layer, paint
from lorablend.demo.styles.marks import Array, bare, blur, grey, is_object, lines, object_mask, regions, unit

_NIGHT = np.array([0.03, 0.02, 0.08], np.float32)
_TUBES = {
    "sun": (1.0, 0.62, 0.15),
    "moon": (0.65, 0.9, 1.0),
    "stars": (0.8, 0.85, 1.0),
    "cloud": (0.45, 0.35, 1.0),
    "far": (0.95, 0.15, 0.75),
    "ground": (0.1, 0.85, 0.9),
    "water": (0.1, 0.5, 1.0),
    "scenery": (0.2, 0.9, 0.6),
}


def neon(layers: Sequence[Layer], seed: int) -> Array:
    """Draw the style, in which nothing is random."""
    layers = bare(layers)
    scale = unit(layers)
    body = object_mask(layers) > 0.5
    colours = np.stack([_light(layer) for layer in layers])

    light = np.zeros((*body.shape, 3), np.float32)
    seen = regions(layers)
    back = np.where(body, 0, seen)
    for name, colour in _TUBES.items():
        of_name = np.array([layer.name == name for layer in layers])
        if of_name.any():
            tube = lines(np.where(of_name[back], back, 0), 1.8 * scale)
            light = np.maximum(light, 0.6 * tube[..., None] * np.array(colour, np.float32))
    light *= ~body[..., None]

    # The tube around the object has its main colour, those inside have the colours of its parts.
    main = colours[[layer.name == "object" for layer in layers]]
    around = lines(body.astype(np.intp), 3.4 * scale)[..., None]
    inside = lines(np.where(body, seen, -1), 1.6 * scale)[..., None] * body[..., None]
    thing = np.maximum(0.75 * inside * colours[seen], around * (main[0] if len(main) else 1))
    light = np.maximum(light * (1 - around), thing)

    halo = 0.9 * blur(light, 2.5 * scale) + 1.1 * blur(light, 8 * scale)
    core = 0.45 * around**2
    canvas = _NIGHT + 0.16 * paint(layers) * ~body[..., None] + 0.2 * body[..., None] * colours[seen]
    return np.clip(canvas + light + halo * (1 - 0.5 * light) + core, 0, 1).astype(np.float32)


def _light(layer: Layer) -> Array:
    """A layer's colour as light: as bright as its hue allows, white and yellow a little less."""
    colour = np.asarray(layer.colour, np.float32).reshape(-1, 3).mean(0)
    if not is_object(layer):
        return colour
    vivid = colour - 0.75 * colour.min()
    vivid = vivid / max(vivid.max(), 0.3)
    return vivid * min(1, 0.75 / float(grey(vivid)))

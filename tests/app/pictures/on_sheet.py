"""Find a picture on a contact sheet by its centre."""

from __future__ import annotations

import numpy as np
from PIL import Image

_SIDE = 192  # pixels, to which small pictures are scaled
_PART = slice(90, 100)


def places(sheet: Image.Image, picture: Image.Image) -> list[tuple[int, int]]:
    """(y, x) of every place where the square picture occurs."""
    pixels = np.asarray(sheet)
    part = np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))[_PART, _PART]
    corners = np.argwhere((pixels == part[0, 0]).all(axis=2))
    height, width = part.shape[:2]
    return [(y, x) for y, x in corners.tolist() if np.array_equal(pixels[y : y + height, x : x + width], part)]

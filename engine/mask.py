"""Masks: f32 [height, width] in 0..1. In inpainting 1 means repaint; for an adapter 1 means that it acts there."""

from pathlib import Path

import numpy as np
from PIL import Image

from lorablend.adapters.errors import BlendError
from lorablend.engine.pixel_budget import decoding

__all__ = ["greys", "masked_cells", "open_mask", "paste"]

_WHITE_16_BIT = 65535


def open_mask(path: Path) -> np.ndarray:
    """Read a picture file as a mask.

    Raises:
        BlendError: the file is not a picture.
    """
    try:
        with Image.open(path) as picture, decoding(picture.width * picture.height):
            return greys(picture)
    except (OSError, Image.DecompressionBombError) as error:
        raise BlendError(f"mask {path} cannot be read as a picture: {error}") from error


def greys(picture: Image.Image) -> np.ndarray:
    """A picture's brightness, f32 [height, width] in 0..1: 1 for white, 0.3 for pure red. What is transparent is 0."""
    if picture.mode.startswith("I"):  # 16 bits; Pillow's conversion to 8 bits would cut them off at 255
        return np.clip(np.asarray(picture, np.float32) / _WHITE_16_BIT, 0, 1)
    grey = np.asarray(picture.convert("L"), np.float32) / 255
    if not picture.has_transparency_data:
        return grey
    return grey * (np.asarray(picture.convert("RGBA").getchannel("A"), np.float32) / 255)


def masked_cells(mask: np.ndarray, cell: int) -> np.ndarray:
    """The latent cells in which any pixel is to be repainted, bool [height / cell, width / cell]."""
    height, width = mask.shape
    return mask.reshape(height // cell, cell, width // cell, cell).max(axis=(1, 3)) > 0


def paste(picture: np.ndarray, original: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Put the masked part of a picture on the original, uint8 [height, width, 3]; a soft mask mixes the two.

    Outside the mask, the original's bytes are unchanged.
    """
    soft = mask[..., None]
    return (picture * soft + original * (1 - soft)).round().astype(np.uint8)

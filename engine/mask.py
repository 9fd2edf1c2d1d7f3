"""Masks: f32 [height, width] in 0..1; for inpainting 1 = repaint, for an adapter 1 = it acts here."""

from pathlib import Path

import numpy as np
from PIL import Image

from lorablend.adapters.errors import BlendError

__all__ = ["greys", "masked_cells", "open_mask", "paste"]

_WHITE_16_BIT = 65535


def open_mask(path: Path) -> np.ndarray:
    """A picture file's greys. BlendError if it is none."""
    try:
        with Image.open(path) as picture:
            return greys(picture)
    except (OSError, Image.DecompressionBombError) as error:
        raise BlendError(f"mask {path} is not a picture that can be read: {error}") from error


def greys(picture: Image.Image) -> np.ndarray:
    """f32 [height, width] in 0..1."""
    if picture.mode.startswith("I"):  # 16 bits, which Pillow's own conversion to 8 would cut off at 255
        return np.clip(np.asarray(picture, np.float32) / _WHITE_16_BIT, 0, 1)
    return np.asarray(picture.convert("L"), np.float32) / 255


def masked_cells(mask: np.ndarray, cell: int) -> np.ndarray:
    """bool [height / cell, width / cell]: the latent cells in which any pixel is to be repainted."""
    height, width = mask.shape
    return mask.reshape(height // cell, cell, width // cell, cell).max(axis=(1, 3)) > 0


def paste(picture: np.ndarray, original: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """uint8 [height, width, 3]: what is outside the mask stays the same to the byte; a soft mask mixes."""
    soft = mask[..., None]
    return (picture * soft + original * (1 - soft)).round().astype(np.uint8)

"""Inpainting masks: f32 [height, width] in 0..1, 1 = repaint."""

import numpy as np

__all__ = ["masked_cells", "paste"]


def masked_cells(mask: np.ndarray, cell: int) -> np.ndarray:
    """bool [height / cell, width / cell]: the latent cells in which any pixel is to be repainted."""
    height, width = mask.shape
    return mask.reshape(height // cell, cell, width // cell, cell).max(axis=(1, 3)) > 0


def paste(picture: np.ndarray, original: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """uint8 [height, width, 3]: what is outside the mask stays the same to the byte; a soft mask mixes."""
    soft = mask[..., None]
    return (picture * soft + original * (1 - soft)).round().astype(np.uint8)

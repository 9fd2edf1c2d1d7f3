"""Previews of latents without the VAE."""

import numpy as np
from PIL import Image

__all__ = ["latent_to_image"]

# A least-squares linear map from SDXL's four latent channels to RGB, as other programs' previews use it.
_RGB = np.array([[0.39, 0.42, 0.44], [-0.26, 0.02, 0.10], [0.03, 0.26, -0.20], [-0.24, -0.29, -0.32]], np.float32)


def latent_to_image(latent: np.ndarray) -> Image.Image:
    """Turn a latent, f32 [1, 4, h, w], into an RGB picture of h × w pixels."""
    rgb = np.einsum("chw,ck->hwk", latent[0], _RGB)
    return Image.fromarray((np.clip(rgb / 2 + 0.5, 0, 1) * 255).astype(np.uint8))

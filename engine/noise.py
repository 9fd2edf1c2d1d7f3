"""Turns seeds into noise, for both runtimes."""

import numpy as np

__all__ = ["noise_source", "picture_noise"]


def picture_noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """The starting noise of one picture, f32, unit variance. A seed gives the same noise in any batch."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def noise_source(seed: int) -> np.random.Generator:
    """The generator of all later noise (ancestral steps); a stream of its own, so that `latents` do not shift it."""
    return np.random.default_rng([seed, 1])

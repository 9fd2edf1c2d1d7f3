"""What a sampler is given: a plan of noise levels, a denoiser, and a source of noise."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Callback", "Denoise", "Noise", "Plan"]

Array: TypeAlias = npt.NDArray[np.floating]
"""Float32 latents in variance-exploding form, x = x0 + sigma * noise; any shape. (numpy types plain floats times
float32 as wider than it is, hence `floating`.)"""

Denoise: TypeAlias = Callable[[Array, float, float], Array]
"""`denoise(x, sigma, t) -> x0`: the picture the model sees in x, whose noise level is sigma and timestep t."""

Noise: TypeAlias = Callable[[], Array]
"""`noise()`: a fresh standard normal array of x's shape."""

Callback: TypeAlias = Callable[[int, float, Array, Array], Any]
"""`callback(index, sigma, x, denoised)`: x as the model got it in step `index` (from 0), and what it answered."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Which noise levels a sampler visits. Made by `plan()`.

    Attributes:
        name: The scheduler, a key of `SCHEDULERS`.
        spacing: The spacing, one of `SPACINGS`, resolved; None where the caller gave the timesteps.
        timesteps: What the UNet is told in each step, [n], float32 or int64, falling.
        sigmas: Noise levels, [n + 1], float32; step i goes from sigmas[i] to sigmas[i + 1]. The last is 0 unless the
            model's config ends its scheduler higher.
        init_sigma: Text to image starts from init_sigma * noise. (Image to image starts from x0 + sigmas[0] * noise.)
        sigmas_down: ddim and tcd, [n]: the level that the deterministic part of each step goes down to.
        first_order_end: dpmpp_2m, dpmpp_2m_sde and unipc: the last step does not look back at the step before it.
        clip: ddim and lcm: denoised latents are clipped to [-clip, clip]; None leaves them alone.
    """

    name: str
    spacing: str | None
    timesteps: npt.NDArray[Any]
    sigmas: Array
    init_sigma: float
    sigmas_down: Array
    first_order_end: bool
    clip: float | None

    def __len__(self) -> int:
        return len(self.timesteps)

    def steps(self) -> Iterator[tuple[float, float, float]]:
        """(t, sigma, next sigma) of each step, as plain numbers: they leave a float32 array float32."""
        sigmas = self.sigmas.tolist()
        return zip(self.timesteps.tolist(), sigmas, sigmas[1:], strict=False)

"""What a sampler works with: a plan of noise levels, a denoiser, and a source of noise."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Callback", "Denoise", "Levels", "Noise", "Plan"]

Array: TypeAlias = npt.NDArray[np.floating]
"""Float32 latents in variance-exploding form, x = x0 + sigma * noise; any shape. (numpy types a Python float times a
float32 array as wider than it is, hence `floating`.)"""

Denoise: TypeAlias = Callable[[Array, float, float], Array]
"""`denoise(x, sigma, t) -> x0`: the picture that the model sees in x, at noise level sigma and timestep t."""

Noise: TypeAlias = Callable[[], Array]
"""`noise()`: a new array of standard normal noise in x's shape."""

Callback: TypeAlias = Callable[[int, float, Array, Array], Any]
"""`callback(index, sigma, x, denoised)`: the model's input x and its answer in step `index`, counted from 0."""


@dataclass(frozen=True, eq=False)
class Levels:
    """The noise levels of a whole run, before `strength` shortens it.

    Attributes:
        timesteps: The timestep at which each step begins, [steps], falling.
        sigmas: The noise level at which each step begins, [steps], falling.
        end: The noise level at which the last step ends.
        table: The noise level of each training timestep, [T], rising.
        spaced: Whether a spacing chose the timesteps; False for the caller's own.
    """

    timesteps: npt.NDArray[Any]
    sigmas: Array
    end: float
    table: Array
    spaced: bool

    def next_sigmas(self) -> Array:
        """The noise level at which each step ends if the next step begins there, [steps]."""
        return np.append(self.sigmas[1:], self.end)


@dataclass(frozen=True, eq=False)
class Plan:
    """Which noise levels a sampler visits, as `plan()` lays them out.

    Attributes:
        name: The scheduler, a key of `SCHEDULERS`.
        spacing: The spacing, one of `SPACINGS`; None if the caller gave the timesteps.
        timesteps: The timestep that the UNet is given in each step, [n], float32 or int64, falling.
        sigmas: Noise levels, [n + 1], float32. Step i goes from sigmas[i] to sigmas[i + 1]. The last one is 0 unless
            the model's config ends its scheduler higher.
        init_sigma: Text to image starts from init_sigma * noise. (Image to image starts from x0 + sigmas[0] * noise.)
        sigmas_down: For ddim and tcd: the level to which the deterministic part of each step goes down, [n].
        first_order_end: For dpmpp_2m, dpmpp_2m_sde and unipc: whether the last step ignores the step before it.
        clip: For ddim and lcm: denoised latents are clipped to [-clip, clip]; None does not clip.
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
        """The (t, sigma, next sigma) of each step, as Python floats, which leave a float32 array float32."""
        sigmas = self.sigmas.tolist()
        return zip(self.timesteps.tolist(), sigmas, sigmas[1:], strict=False)

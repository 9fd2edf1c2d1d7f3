"""The timesteps and noise levels that a run of n steps visits, rounded as diffusers rounds them.

Leading, trailing and linspace choose timesteps (table 2 of arXiv:2305.08891); karras and exponential choose sigmas, and
the timesteps follow from them.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["SIGMA_SPACINGS", "SPACINGS", "TIMESTEP_SPACINGS", "distilled", "timesteps_at", "timesteps_of"]

Floats = npt.NDArray[np.floating]


def timesteps_at(spacing: str, steps: int, train_steps: int, offset: int, skip: int) -> npt.NDArray[np.float64]:
    """Falling timesteps of the leading, trailing or linspace spacing, [steps].

    Args:
        offset: Added to the timesteps of the leading spacing.
        skip: Leading and linspace spread this many more points than steps, and leave out the lowest ones.
    """
    points = steps + skip
    if spacing == "trailing":
        # Cut to length: where train_steps / steps is not exact, arange may run one step too far.
        rising = np.round(np.arange(train_steps, 0, -train_steps / steps)[:steps])[::-1] - 1
    elif spacing == "leading":
        rising = np.arange(points, dtype=np.float64)[skip:] * (train_steps // points) + offset
    else:
        rising = np.linspace(0, train_steps - 1, points)[skip:]
    return rising[::-1].copy()


def distilled(steps: int, train_steps: int, original_steps: int) -> npt.NDArray[np.int64]:
    """Falling timesteps of lcm and tcd, [steps]: a trailing choice from those that they were distilled on."""
    grid = np.arange(original_steps, 0, -1) * (train_steps // original_steps) - 1
    return grid[np.floor(np.linspace(0, original_steps, steps, endpoint=False)).astype(np.int64)]


def _karras(sigma_max: float, sigma_min: float, steps: int) -> npt.NDArray[np.float64]:
    """Falling sigmas that crowd near sigma_min, [steps] (arXiv:2206.00364, equation 5, rho 7)."""
    return np.linspace(sigma_max ** (1 / 7), sigma_min ** (1 / 7), steps) ** 7


def _exponential(sigma_max: float, sigma_min: float, steps: int) -> npt.NDArray[np.float64]:
    """Falling sigmas, evenly spaced in their logarithm, [steps]."""
    return np.exp(np.linspace(np.log(sigma_max), np.log(sigma_min), steps))


TIMESTEP_SPACINGS = ("leading", "trailing", "linspace")
SIGMA_SPACINGS = {"karras": _karras, "exponential": _exponential}
SPACINGS = (*TIMESTEP_SPACINGS, *SIGMA_SPACINGS)
"""Every spacing by the name that requests give it."""


def timesteps_of(sigmas: Floats, table: Floats) -> npt.NDArray[np.float64]:
    """The fractional timestep of each sigma, interpolated in the logarithm of the training table.

    This is not `np.interp`, because some schedulers truncate the result: its last bit must be that of diffusers.
    """
    logs, wanted = np.log(table), np.log(sigmas)
    low = np.clip(np.searchsorted(logs, wanted, side="right") - 1, 0, len(logs) - 2)
    weight = np.clip((logs[low] - wanted) / (logs[low] - logs[low + 1]), 0, 1)
    return (1 - weight) * low + weight * (low + 1)

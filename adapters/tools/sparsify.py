"""Two ways to add up dense changes of a weight so that they interfere less.

ties: trim, elect sign and merge (https://arxiv.org/abs/2306.01708). dare: drop and rescale
(https://arxiv.org/abs/2311.03099). Both are applied weight by weight, not to a whole model at once.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["dare", "ties"]


def ties(changes: Sequence[np.ndarray], density: float) -> np.ndarray:
    """Trim each change to its largest entries, a part `density` of them, and merge by sign.

    Each entry of the result has the sign of the sum of the trimmed entries, and is the mean of those with this sign.
    """
    total, agreeing, count = (np.zeros_like(changes[0]) for _ in range(3))
    trimmed = [_trim(change, density) for change in changes]
    for change in trimmed:
        total += change
    positive = total >= 0
    for change in trimmed:
        same = np.where(positive, change > 0, change < 0)
        agreeing += np.where(same, change, 0)
        count += same
    return agreeing / np.maximum(count, 1)


def _trim(change: np.ndarray, density: float) -> np.ndarray:
    sizes = np.abs(change).reshape(-1)
    dropped = sizes.size - int(density * sizes.size)
    if dropped == sizes.size:
        return np.zeros_like(change)
    least = np.partition(sizes, dropped)[dropped]
    return np.where(np.abs(change) >= least, change, np.float32(0))


def dare(changes: Sequence[np.ndarray], density: float, seeds: Sequence[Sequence[int]]) -> np.ndarray:
    """Keep a random part `density` of each change's entries, divide them by `density`, and add up.

    `seeds`: the numbers that seed the random choice, for each change.
    """
    total = np.zeros_like(changes[0])
    for change, seed in zip(changes, seeds, strict=True):
        kept = np.random.default_rng(seed).random(change.shape, np.float32) < density
        total += np.where(kept, change / np.float32(density), 0)
    return total

"""Rotations from skew-symmetric matrices by the Cayley transform, for all forms of OFT."""

import numpy as np

from lorablend.adapters.errors import AdapterError

__all__ = ["check_stages", "neumann_change", "rotation_change", "skew", "skew_from_triangle"]

# For larger entries of Q, float64 leaves no float32 digits of the inverse: the condition of I − Q is √(1 + ‖Q‖²).
# Trained entries are below 10.
_LARGEST = 1e8


def skew(blocks: np.ndarray) -> np.ndarray:
    """Return B − Bᵀ for every block [..., n, n]."""
    return blocks - np.swapaxes(blocks, -1, -2)


def skew_from_triangle(entries: np.ndarray, size: int) -> np.ndarray:
    """Return skew-symmetric matrices [k, size, size] from their entries above the diagonal, row by row.

    `entries`: [k, size · (size − 1) / 2].
    """
    upper = np.zeros((len(entries), size, size), entries.dtype)
    rows, columns = np.triu_indices(size, 1)
    upper[:, rows, columns] = entries
    return skew(upper)


def rotation_change(module: str, q: np.ndarray) -> np.ndarray:
    """Return R − I in float32 for R = (I + Q)(I − Q)⁻¹, Q float64 [..., n, n].

    It is computed as 2Q(I − Q)⁻¹, which loses no digits if R is close to I. Raises AdapterError if Q is too large.
    """
    if np.abs(q).max() > _LARGEST:
        raise _too_large(module)
    return (2 * (q @ np.linalg.inv(np.eye(q.shape[-1]) - q))).astype(np.float32)


def neumann_change(module: str, q: np.ndarray, terms: int) -> np.ndarray:
    """Return R − I in float32 for the series that PEFT uses: R = I + 2Q + 2Q² + … + Q^(terms − 1), Q float64.

    This follows `OFTRotationModule._cayley_batch` (peft/tuners/oft/layer.py, 0.18 and later), where three terms are
    really four, and two terms end with 2Q.
    """
    with np.errstate(all="ignore"):
        power, change = q, np.zeros_like(q)
        if terms > 1:
            change += 2 * q
        if terms > 2:
            last = max(terms - 1, 3)
            for exponent in range(2, last + 1):
                power = power @ q
                change += power if exponent == last else 2 * power
        change = change.astype(np.float32)
    if not np.isfinite(change).all():
        raise _too_large(module)
    return change


def check_stages(module: str, shape: tuple[int, ...]) -> None:
    """Raise AdapterError unless BOFT's stages can exchange halves of these blocks, [stages, blocks, n, n]."""
    stages, count, size, _ = shape
    if size % 2 or stages > count.bit_length() or count % 2 ** (stages - 1):
        raise AdapterError(f"{module}: {count} blocks of {size}×{size} cannot be paired in {stages} stages")


def _too_large(module: str) -> AdapterError:
    return AdapterError(f"{module}: the rotations are too large to compute; the file is unusable")

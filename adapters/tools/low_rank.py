"""Low-rank factors: the best ones of a given rank for a sum of others or for a dense change; norms, inner products.

The product up · down is not computed (unless it is no larger than its factors): everything about it follows from the
two Gram matrices upᵀ·up and down·downᵀ, which are as small as the rank. They are accumulated in float64. Although they
square the condition number, this leaves more digits than float32 factors have, and it is ten times faster than QR
factorisations in float32 (measured: 1 ms rather than 15 ms for 160 columns of 1280).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lorablend.adapters.errors import AdapterError

__all__ = ["LowRank", "Pair", "factorise", "inner", "norm", "recompress"]

# down [rank, in] or [rank, in, kernel height, kernel width], up [out, rank]: the change up · down.
Pair = tuple[np.ndarray, np.ndarray]

# The square of a singular value below this part of the largest one is rounding noise of the float32 factors.
_NOTHING = float(np.finfo(np.float32).eps / 4) ** 2


class LowRank(NamedTuple):
    """Factors of a change, both of about the same magnitude, so that float16 can represent both.

    Attributes:
        down: float32 [rank, in] or [rank, in, kernel height, kernel width].
        up: float32 [out, rank].
        error: ‖exact − up · down‖ / ‖exact‖ in the Frobenius norm.
    """

    down: np.ndarray
    up: np.ndarray
    error: float


def recompress(factors: Sequence[Pair], max_rank: int, keep: float = 1.0) -> LowRank:
    """Approximate the sum of all up · down by one pair of factors of at most `max_rank`.

    The result is the best approximation in the Frobenius norm (a truncated SVD, by Eckart and Young). If the ranks add
    up to no more than `max_rank` and everything is kept, the factors are only joined, without error. A sum that is zero
    gets rank 0. `down` has the shape of the first one given.

    Args:
        factors: The pairs (down, up) to add up.
        max_rank: The largest rank of the result.
        keep: The part of ‖sum‖² to keep, 0 to 1. The smallest rank that does is taken, so the error is at most
            √(1 − keep) unless `max_rank` is smaller.

    Raises:
        AdapterError: The factors are for weights of different shapes.
    """
    down, up = _join(factors)
    kernel = factors[0][0].shape[1:]
    if len(down) <= max_rank and keep >= 1:
        return LowRank(down.reshape(-1, *kernel), up, 0.0)
    if len(down) >= min(down.shape[1], len(up)):  # the product is no larger than its factors
        return factorise((up @ down).reshape(len(up), *kernel), max_rank, keep)
    down, up = down.astype(np.float64), up.astype(np.float64)

    gram_down, gram_up, balance = _balanced(down @ down.T, up.T @ up)
    # With upᵀ·up = root · rootᵀ the left singular vectors are up · root⁻ᵀ · P, where rootᵀ · (down · downᵀ) · root =
    # P · S² · Pᵀ; projecting onto them gives up · root⁻ᵀ · P and Pᵀ · rootᵀ · down.
    root, inverse = _root(gram_up)
    # A square this small compared to the factors is the rounding error of changes that cancel out.
    least = gram_down.trace() * gram_up.trace() * np.finfo(np.float64).eps * len(gram_up)
    squares, vectors, error = _leading(root.T @ gram_down @ root, max_rank, keep, least)
    half = squares**0.25
    new_up = up @ (balance[:, None] * (inverse @ (vectors * half)))
    new_down = (((vectors / half).T @ root.T) / balance) @ down
    return LowRank(new_down.astype(np.float32).reshape(-1, *kernel), new_up.astype(np.float32), error)


def factorise(matrix: np.ndarray, max_rank: int, keep: float = 1.0) -> LowRank:
    """Approximate a dense change [out, in] or [out, in, kernel height, kernel width] by factors.

    `max_rank` and `keep` are the same as in `recompress`.
    """
    flat = matrix.reshape(len(matrix), -1).astype(np.float64)
    wide = flat.shape[0] <= flat.shape[1]
    squares, vectors, error = _leading(flat @ flat.T if wide else flat.T @ flat, max_rank, keep)
    half = squares**0.25
    left, right = vectors * half, (vectors / half).T @ (flat if wide else flat.T)
    down, up = (right, left) if wide else (left.T, right.T)
    return LowRank(down.astype(np.float32).reshape(-1, *matrix.shape[1:]), up.astype(np.float32), error)


def _leading(gram: np.ndarray, max_rank: int, keep: float, least: float = 0.0) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the leading part of the SVD of a matrix that is given by its Gram matrix.

    The three values are the squares of the leading singular values, the singular vectors as columns, and the relative
    error of the matrix that consists of only these.
    """
    squares, vectors = np.linalg.eigh(gram)
    squares, vectors = np.maximum(squares[::-1], 0), vectors[:, ::-1]
    total = squares.sum()
    rank = int((squares > max(_NOTHING * squares.max(initial=0), least)).sum())
    if keep < 1:
        rank = min(rank, int(np.searchsorted(squares.cumsum(), keep * total)) + 1)
    rank = min(rank, max_rank)
    error = float(np.sqrt(squares[rank:].sum() / total)) if rank else 0.0
    return squares[:rank], vectors[:, :rank], error


def norm(down: np.ndarray, up: np.ndarray) -> float:
    """Return the Frobenius norm of up · down."""
    return float(np.sqrt(max(0.0, inner((down, up), (down, up)))))


def inner(a: Pair, b: Pair) -> float:
    """Return the Frobenius inner product of two changes of the same weight, ⟨up · down of a, up · down of b⟩."""
    (down_a, up_a), (down_b, up_b) = _wide(a), _wide(b)
    _check_same(down_a, up_a, down_b, up_b)
    return float(((up_a.T @ up_b) * (down_a @ down_b.T)).sum())


def _wide(pair: Pair) -> Pair:
    down, up = pair
    return down.reshape(len(down), _row(down)).astype(np.float64), up.astype(np.float64)


def _row(down: np.ndarray) -> int:
    return int(np.prod(down.shape[1:]))  # reshape's -1 cannot infer it if the rank is 0


def _join(factors: Sequence[Pair]) -> Pair:
    downs = [down.reshape(len(down), _row(down)).astype(np.float32, copy=False) for down, _ in factors]
    ups = [up.astype(np.float32, copy=False) for _, up in factors]
    for down, up in zip(downs, ups, strict=True):
        _check_same(downs[0], ups[0], down, up)
    if len(factors) == 1:
        return downs[0], ups[0]
    return np.concatenate(downs), np.concatenate(ups, axis=1)


def _check_same(down_a: np.ndarray, up_a: np.ndarray, down_b: np.ndarray, up_b: np.ndarray) -> None:
    first, second = (len(up_a), down_a.shape[1]), (len(up_b), down_b.shape[1])
    if first != second:
        sizes = [f"{out}×{columns}" for out, columns in (first, second)]
        raise AdapterError(f"changes of a {sizes[0]} weight and of a {sizes[1]} weight cannot be added")


def _balanced(gram_down: np.ndarray, gram_up: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale up[:, i] and down[i] to the same length; return both Gram matrices and the factors of up's columns.

    This matters because one adapter may have a tiny up and a large down, and another the reverse.
    """
    rows, columns = np.sqrt(np.diagonal(gram_down)), np.sqrt(np.diagonal(gram_up))
    used = (rows > 0) & (columns > 0)
    balance = np.ones_like(rows)
    np.sqrt(np.divide(rows, columns, where=used, out=balance), where=used, out=balance)
    return gram_down / np.outer(balance, balance), gram_up * np.outer(balance, balance), balance


def _root(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (root, inverse), where gram = root · rootᵀ and inverse = root⁻ᵀ, without the null space of gram."""
    squares, vectors = np.linalg.eigh(gram)
    kept = squares > np.finfo(np.float64).eps * len(gram) * max(squares[-1], 0)
    lengths = np.sqrt(squares[kept])
    return vectors[:, kept] * lengths, vectors[:, kept] / lengths

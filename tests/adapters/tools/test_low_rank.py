"""Recompression and norms, compared to dense float64 algebra."""

from __future__ import annotations

import numpy as np
import pytest

from lorablend.adapters.errors import AdapterError
from lorablend.adapters.tools.low_rank import Pair, factorise, inner, norm, recompress
from tests.adapter_files import message_of


def pairs(out: int, columns: int | tuple[int, ...], ranks: tuple[int, ...], seed: int = 0) -> list[Pair]:
    """Random float32 factors of several changes of a weight."""
    random = np.random.default_rng(seed)
    shape = columns if isinstance(columns, tuple) else (columns,)
    return [
        (random.normal(0, 0.02, (rank, *shape)).astype(np.float32), random.normal(0, 0.05, (out, rank)).astype("f4"))
        for rank in ranks
    ]


def dense(factors: list[Pair]) -> np.ndarray:
    return np.sum([np.float64(up) @ down.reshape(len(down), -1) for down, up in factors], axis=0)


def relative(value: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(
    ("out", "columns", "ranks", "max_rank"),
    [
        (128, 96, (8, 8, 4), 10),
        (96, 128, (8, 8, 4), 1),
        (128, 300, (8, 8, 8, 8, 8), 39),
        (64, 48, (32, 32), 20),  # as many rows as the product has, or more
        (48, 64, (32, 32), 20),
        (40, (12, 3, 3), (16, 16), 8),
    ],
)
def test_the_best_approximation_and_its_error(
    out: int, columns: int | tuple[int, ...], ranks: tuple[int, ...], max_rank: int
) -> None:
    factors = pairs(out, columns, ranks)
    whole = dense(factors)
    values = np.linalg.svd(whole, compute_uv=False)
    best = np.sqrt((values[max_rank:] ** 2).sum() / (values**2).sum())

    down, up, error = recompress(factors, max_rank)

    assert (down.dtype, up.dtype) == (np.float32, np.float32)
    assert (len(down), up.shape) == (max_rank, (out, max_rank))
    assert down.shape[1:] == factors[0][0].shape[1:]
    assert error == pytest.approx(best, rel=1e-6)
    assert relative(dense([(down, up)]), whole) == pytest.approx(best, rel=1e-6)


def test_the_two_factors_have_the_same_magnitude() -> None:
    down, up, _ = recompress([(down * 1e-3, up * 1e3) for down, up in pairs(96, 64, (16, 16))], 8)
    np.testing.assert_allclose(np.linalg.norm(down, axis=1), np.linalg.norm(up, axis=0), rtol=1e-4)


def test_factors_that_fit_are_only_joined() -> None:
    factors = pairs(32, (24, 3, 3), (4, 6))
    down, up, error = recompress(factors, 10)
    assert error == 0
    np.testing.assert_array_equal(down, np.concatenate([factors[0][0], factors[1][0]]))
    np.testing.assert_array_equal(up, np.concatenate([factors[0][1], factors[1][1]], axis=1))


@pytest.mark.parametrize("exponents", [(0, 0, 0, 0), (-3, -1, 2, 4)])
def test_it_is_exact_if_the_rank_suffices_whatever_the_factors_magnitudes(exponents: tuple[int, ...]) -> None:
    [(down, up)] = pairs(320, 160, (16,))
    factors = [(down * np.float32(10.0**e), up * np.float32((e + 5) * 10.0**-e)) for e in exponents]
    whole = dense(factors)
    new_down, new_up, error = recompress(factors, 40)
    assert len(new_down) == 16
    # 2e-7: the resulting factors are float32
    assert relative(dense([(new_down, new_up)]), whole) < 2e-7
    assert error < 1e-7


def test_changes_that_cancel_out_leave_nothing() -> None:
    [(down, up)] = pairs(64, 48, (16,))
    new_down, new_up, error = recompress([(down, up), (down, -up)], 16)
    assert (new_down.shape, new_up.shape, error) == ((0, 48), (64, 0), 0.0)


def test_zeros_leave_nothing() -> None:
    new_down, new_up, error = recompress([(np.zeros((8, 48), "f4"), np.ones((64, 8), "f4"))] * 2, 4)
    assert (new_down.shape, new_up.shape, error) == ((0, 48), (64, 0), 0.0)


def test_norm_and_inner_product() -> None:
    a, b = pairs(96, (20, 3, 3), (8, 5))
    assert norm(*a) == pytest.approx(np.linalg.norm(dense([a])), rel=1e-12)
    assert inner(a, b) == pytest.approx((dense([a]) * dense([b])).sum(), rel=1e-9)
    assert inner(a, (-a[0], a[1])) == pytest.approx(-(norm(*a) ** 2), rel=1e-12)


def test_of_different_weights() -> None:
    [a], [b] = pairs(64, 48, (4,)), pairs(64, 32, (4,))
    expected = "changes of a 64×48 weight and of a 64×32 weight cannot be added"
    assert message_of(AdapterError, lambda: recompress([a, b], 4)) == expected
    assert message_of(AdapterError, lambda: inner(a, b)) == expected


@pytest.mark.parametrize("shape", [(48, 80), (80, 48), (24, 6, 3, 3)])
@pytest.mark.parametrize("rank", [1, 7, 100])
def test_factors_of_a_dense_change(shape: tuple[int, ...], rank: int) -> None:
    matrix = np.random.default_rng(1).normal(0, 0.1, shape).astype(np.float32)
    flat = np.float64(matrix.reshape(len(matrix), -1))
    left, values, right = np.linalg.svd(flat, full_matrices=False)
    best = (left[:, :rank] * values[:rank]) @ right[:rank]
    down, up, error = factorise(matrix, rank)
    assert len(down) == min(rank, len(values))
    assert down.shape[1:] == shape[1:]
    assert error == pytest.approx(np.sqrt((values[rank:] ** 2).sum() / (values**2).sum()), rel=1e-6)
    assert relative(dense([(down, up)]), best) < 1e-6  # float32 factors


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.999, 1.0])
def test_keep_takes_the_smallest_rank_that_keeps_enough(keep: float) -> None:
    factors = pairs(96, 64, (12, 12))
    squares = np.linalg.svd(dense(factors), compute_uv=False)[:24] ** 2
    energy = squares.cumsum() / squares.sum()
    expected = next(rank for rank in range(1, 25) if energy[rank - 1] >= keep - 1e-12)
    for result in (recompress(factors, 24, keep), factorise(dense(factors).astype(np.float32), 64, keep)):
        assert len(result.down) == expected
        assert result.error <= np.sqrt(1 - keep) + 1e-7
    assert len(recompress(factors, 3, keep).down) == min(3, expected)

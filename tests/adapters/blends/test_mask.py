from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorablend.adapters import Mask
from lorablend.adapters.errors import BlendError
from tests.adapter_files import message_of

# Means of up to 81 numbers below 1 in f32: each product and sum is off by at most half of 2^-24.
TOLERANCE = 1e-6


def test_a_box() -> None:
    cells = Mask((0.25, 0, 1, 0.5)).cells(4, 2)
    assert cells.dtype == np.float32
    assert cells.tolist() == [[0.5, 1], [0.5, 1], [0, 0], [0, 0]]


def test_a_picture() -> None:
    picture = np.array([[0, 1, 0.5, 0.5], [1, 0, 0.5, 0.5]])
    assert Mask(picture=picture).cells(1, 2).tolist() == [[0.5, 0.5]]
    assert np.allclose(Mask(picture=picture).cells(2, 4), picture, atol=TOLERANCE)
    assert np.allclose(Mask(picture=picture).cells(4, 8), np.kron(picture, np.ones((2, 2))), atol=TOLERANCE)


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 99)
)
def test_means_over_areas(size: tuple[int, int], grid: tuple[int, int], seed: int) -> None:
    """Compared to plain means: every pixel is divided so finely that no cell's edge crosses a part."""
    picture = np.random.default_rng(seed).random(size)
    fine = np.kron(picture, np.ones(grid))  # [size · grid], divisible by the grid
    expected = fine.reshape(grid[0], size[0], grid[1], size[1]).mean(axis=(1, 3))
    assert np.allclose(Mask(picture=picture).cells(*grid), expected, atol=TOLERANCE)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 8), st.integers(1, 8))
def test_a_box_is_the_picture_of_it(height: int, width: int, rows: int, columns: int) -> None:
    picture = np.zeros((8, 8))
    picture[:rows, 8 - columns :] = 1
    box = Mask((1 - columns / 8, 0, 1, rows / 8))
    assert np.allclose(box.cells(height, width), Mask(picture=picture).cells(height, width), atol=TOLERANCE)


def test_masks_that_cover_the_same_are_equal() -> None:
    picture = np.eye(3)
    mask = Mask(picture=picture, name="a.png")
    assert mask == Mask(picture=np.eye(3, dtype=np.float32), name="b.png")
    assert hash(mask) == hash(Mask(picture=np.eye(3)))
    assert mask != Mask(picture=1 - picture)
    assert mask != Mask(picture=np.eye(3).reshape(1, 9))
    assert Mask((0, 0, 1, 0.5)) == Mask([0.0, 0, 1, 0.5])  # pyright: ignore[reportArgumentType]
    assert Mask((0, 0, 1, 0.5)) != Mask((0, 0, 0.5, 1))
    picture[0, 0] = 0  # the mask has its own copy
    assert mask.cells(3, 3)[0, 0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "a mask is a box or a picture; give one of the two"),
        ({"box": (0, 0, 1, 1), "picture": np.eye(2)}, "a mask is a box or a picture; give one of the two"),
        ({"box": (0.5, 0, 0.5, 1)}, "mask 0.5, 0, 0.5, 1 is empty; give left < right and top < bottom, from 0 to 1"),
        ({"box": (0, 0, 2, 1)}, "mask 0, 0, 2, 1 is empty; give left < right and top < bottom, from 0 to 1"),
        ({"box": (0, 0, 1)}, "mask (0, 0, 1) is not a box; give left, top, right and bottom as numbers from 0 to 1"),
        ({"box": (0, 0, 1, "1")}, "mask edge 1 is not a finite number"),
        (
            {"picture": np.zeros((2, 2, 3)), "name": "rgb.png"},
            "mask rgb.png has the shape [2, 2, 3]; give a grey picture, height × width",
        ),
        ({"picture": np.full((2, 2), 255), "name": "a.png"}, "mask a.png has values from 255 to 255; give 0 to 1"),
        ({"picture": np.full((2, 2), np.nan), "name": "a.png"}, "mask a.png has values from nan to nan; give 0 to 1"),
    ],
    ids=str,
)
def test_refused(arguments: dict, message: str) -> None:
    assert message_of(BlendError, lambda: Mask(**arguments)) == message

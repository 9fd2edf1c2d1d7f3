"""Where in the picture an adapter acts: a box, or a grey picture."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lorablend.adapters.errors import BlendError
from lorablend.adapters.forms import finite
from lorablend.adapters.wording import shown

__all__ = ["Box", "Mask"]

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as fractions of the width and the height from 0 to 1."""


@dataclass(frozen=True)
class Mask:
    """Where an adapter acts: 1 where it does, 0 where it does not.

    A mask is either a box or a grey picture. Masks with the same box, or the same values, compare equal, whatever their
    names are.

    Attributes:
        box: Left, top, right and bottom, as fractions of the width and the height from 0 to 1.
        picture: Values from 0 to 1, [height, width] of any size, which are stretched over the whole picture. They are
            copied.
        name: The picture's name in the text forms.
        digest: The SHA-256 of the picture's shape and values in hex, "" for a box; computed.

    Raises:
        BlendError: Both or none of box and picture are given, or a value is out of range.
    """

    box: Box | None = None
    picture: np.ndarray | None = field(default=None, compare=False, repr=False)
    name: str = field(default="", compare=False)
    digest: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        if (self.box is None) == (self.picture is None):
            raise BlendError("a mask is a box or a picture; give one of the two")
        if self.box is not None:
            object.__setattr__(self, "box", _box(self.box))
        if self.picture is not None:
            picture = _picture(self.picture, self.name)
            object.__setattr__(self, "picture", picture)
            digest = hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()
            object.__setattr__(self, "digest", digest)

    def cells(self, height: int, width: int) -> np.ndarray:
        """Return the mask on a grid: for each cell the mean over its area, float32 from 0 to 1, [height, width].

        Args:
            height: The number of rows.
            width: The number of columns.
        """
        if self.box is not None:
            left, top, right, bottom = self.box
            return np.outer(_covered(top, bottom, height), _covered(left, right, width)).astype(np.float32)
        assert self.picture is not None
        rows, columns = _area_weights(self.picture.shape[0], height), _area_weights(self.picture.shape[1], width)
        return np.clip(rows @ self.picture @ columns.T, 0, 1).astype(np.float32)

    def to_json(self) -> list[float] | str:
        """Return the JSON form: the box's four numbers, or the picture's name."""
        return list(self.box) if self.box is not None else self.name


def _box(value: object) -> Box:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 4:
        raise BlendError(f"mask {shown(value)} is not a box; give left, top, right and bottom as numbers from 0 to 1")
    left, top, right, bottom = box = tuple(finite(edge, "mask edge") for edge in value)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise BlendError(
            f"mask {', '.join(f'{edge:g}' for edge in box)} is empty; give left < right and top < bottom, from 0 to 1"
        )
    return left, top, right, bottom


def _picture(values: np.ndarray, name: str) -> np.ndarray:
    picture = np.array(values, np.float32)
    if picture.ndim != 2 or not picture.size:
        raise BlendError(f"mask {shown(name)} has the shape {list(picture.shape)}; give a grey picture, height × width")
    if not (picture.min() >= 0 and picture.max() <= 1):  # in this form it refuses NaN too
        raise BlendError(f"mask {shown(name)} has values from {picture.min():g} to {picture.max():g}; give 0 to 1")
    picture.setflags(write=False)
    return picture


def _covered(low: float, high: float, cells: int) -> np.ndarray:
    """Return how much of each of `cells` equal parts of 0..1 is between low and high, [cells]."""
    edges = np.linspace(0, 1, cells + 1)
    return np.clip((np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)) * cells, 0, 1)


def _area_weights(size: int, cells: int) -> np.ndarray:
    """Return the weight of each pixel of a line in the mean over each cell, [cells, size]; every row sums to 1."""
    edges, pixels = np.linspace(0, size, cells + 1), np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    overlap = np.clip(overlap, 0, None)
    # In float32 like the picture, so that a large one is not converted for the product.
    return (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)

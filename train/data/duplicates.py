"""Near-duplicates among pictures, found by a difference hash and by colour at any size and compression."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lorablend.train.data.examples import Example
from lorablend.train.data.pictures import load_upright

__all__ = ["near_duplicates"]

_LOSSY = {".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif"}
_SIDE = 16
_STEP = 2  # grey levels that a pixel must rise by, so that noise in flat areas does not count
_MOST_BITS = 26  # of 256 that may differ
_MOST_COLOUR = 28  # levels that any of 16×16 cells may differ by: a small object of another colour counts
_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def near_duplicates(examples: Sequence[Example]) -> list[tuple[int, int]]:
    """Find pairs (index of a duplicate, index of its original).

    The original among several is the one with the most pixels; among equals one with a caption, then one stored
    without loss, then the first.
    """

    def worth(index: int) -> tuple[int, bool, bool, int]:
        example = examples[index]
        lossy = example.path.suffix.lower() in _LOSSY
        return -example.size[0] * example.size[1], not example.captions, lossy, index

    order = sorted(range(len(examples)), key=worth)
    prints = [_fingerprint(example.path) for example in examples]
    bits = np.stack([mark for mark, _ in prints]) if prints else np.zeros((0, 32), np.uint8)
    pairs: list[tuple[int, int]] = []
    kept: list[int] = []
    for index in order:
        differing = _ONES[bits[kept] ^ bits[index]].sum(1)
        near = [kept[place] for place in np.flatnonzero(differing <= _MOST_BITS)]
        colours = prints[index][1]
        original = next((other for other in near if np.abs(prints[other][1] - colours).max() <= _MOST_COLOUR), None)
        if original is None:
            kept.append(index)
        else:
            pairs.append((index, original))
    return sorted(pairs)


def _fingerprint(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A difference hash (does grey rise from left to right?), 256 bits packed, and the colours, int16 [16, 16, 3]."""
    image = load_upright(path)
    grey = np.asarray(image.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BOX), np.int16)
    colours = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.int16)
    return np.packbits(grey[:, 1:] - grey[:, :-1] > _STEP), colours

"""The styles' tools: a scene's layers as regions and colours, lines between them, smooth noise, blur and bend.

Arrays are [size, size], or [size, size, 3] in sRGB 0 to 1. Lengths are in units of 1/256 of the picture's side, so that
a style looks the same at every size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from lorablend.demo.canvas import Layer, paint

__all__ = [
    "Array",
    "bare",
    "bend",
    "blur",
    "cells",
    "grey",
    "grid",
    "is_object",
    "lines",
    "mix",
    "noise",
    "object_mask",
    "regions",
    "saturate",
    "shift",
    "soft_step",
    "take",
    "unit",
]

Array = NDArray[np.floating]


def unit(layers: Sequence[Layer]) -> float:
    """Pixels to one unit of length."""
    return layers[0].mask.shape[0] / 256


def bare(layers: Sequence[Layer]) -> list[Layer]:
    """The layers without the plain drawing's outline and shadow, for styles that have their own."""
    return [layer for layer in layers if layer.name not in ("outline", "shadow")]


def is_object(layer: Layer) -> bool:
    """Whether a layer belongs to the scene's object, not to its backdrop."""
    return layer.name.startswith("object")


def regions(layers: Sequence[Layer], leave_out: Sequence[str] = ()) -> NDArray[np.intp]:
    """The number of the visible layer at each pixel, without faint layers (halos, glints) and those left out."""
    seen = np.zeros(layers[0].mask.shape, np.intp)
    for number, layer in enumerate(layers):
        if layer.name not in leave_out:
            seen[layer.mask > 0.65] = number
    return seen


def cells(layers: Sequence[Layer], count: int) -> tuple[Array, NDArray[np.bool_]]:
    """Make a coarse picture [count, count, 3] with hard edges, and tell which of its cells are the object's.

    Each cell has the mean colour of the object or of the backdrop in it, whichever matters more.
    """
    body, colour = object_mask(layers), paint(layers)
    share = _shrink(body, count)
    thing, rest = (
        np.stack([_shrink(colour[..., i] * cover, count) for i in range(3)], -1) for cover in (body, 1 - body)
    )
    is_body = share > 0.4
    mean = np.where(is_body[..., None], thing, rest) / np.where(is_body, share, 1 - share)[..., None]
    return np.clip(mean, 0, 1), is_body


def object_mask(layers: Sequence[Layer]) -> Array:
    """The fraction of each pixel that shows the object, without what is painted in front of it."""
    cover = np.zeros_like(layers[0].mask)
    for layer in layers:
        cover += layer.mask * (float(is_object(layer)) - cover)
    return cover


def grid(size: int) -> tuple[Array, Array]:
    """The pixel centres x and y in units, each [size, size]."""
    at = (np.arange(size, dtype=np.float32) + 0.5) * (256 / size)
    x, y = np.meshgrid(at, at)
    return x, y


def noise(random: np.random.Generator, size: int, cell: float) -> Array:
    """Smooth noise 0 to 1, with features of about `cell` units: [size, size]."""
    count = max(2, round(256 / cell))
    coarse = Image.fromarray(random.random((count, count), np.float32))
    return np.clip(np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)), 0, 1)


def blur(image: Array, pixels: float) -> Array:
    """A Gaussian blur of one or three channels, in steps of 1/255."""
    return _floats(_bytes(image).filter(ImageFilter.GaussianBlur(pixels)))


def lines(seen: NDArray[np.intp], width: float) -> Array:
    """Lines of this many pixels along the borders between regions, antialiased: 0 to 1."""
    border = np.zeros(seen.shape, bool)
    border[:, :-1] |= seen[:, :-1] != seen[:, 1:]
    border[:-1] |= seen[:-1] != seen[1:]
    return _rim(border.astype(np.float32), width)


def _rim(mask: Array, width: float) -> Array:
    """Widen lines of one pixel to `width` pixels, with softened edges."""
    image = _bytes(mask)
    reach = int(width / 2)
    if reach:  # MaxFilter(1) crashes Pillow 12
        image = image.filter(ImageFilter.MaxFilter(2 * reach + 1))
    return np.clip(_floats(image.filter(ImageFilter.GaussianBlur(0.6))) * 1.15, 0, 1)


def bend(
    random: np.random.Generator, size: int, amount: float, cell: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns for `take` that displace each pixel by up to `amount` units, smoothly over `cell` units."""
    rows, columns = np.mgrid[0:size, 0:size]
    reach = 2 * amount * size / 256
    rows = np.rint(rows + (noise(random, size, cell) - 0.5) * reach).astype(np.intp)
    columns = np.rint(columns + (noise(random, size, cell) - 0.5) * reach).astype(np.intp)
    return np.clip(rows, 0, size - 1), np.clip(columns, 0, size - 1)


def take(image: NDArray, at: tuple[NDArray[np.intp], NDArray[np.intp]]) -> NDArray:
    """The picture's pixels at these rows and columns."""
    return image[at[0], at[1]]


def shift(image: NDArray, down: int, right: int) -> NDArray:
    """Shift the picture by this many pixels, repeating its edges."""
    size = image.shape[0]
    rows = np.clip(np.arange(size) - down, 0, size - 1)
    columns = np.clip(np.arange(size) - right, 0, size - 1)
    return image[rows[:, None], columns]


def mix(under: Array | float, over: Array | Sequence[float], cover: Array) -> Array:
    """Paint `over` on `under`, with the coverage `cover`, 0 to 1, [size, size]."""
    base = np.asarray(under, np.float32)
    return base + cover[..., None] * (np.asarray(over, np.float32) - base)


def grey(image: Array) -> Array:
    """The luma (ITU-R BT.601) of a picture, [size, size]."""
    return image @ np.array([0.299, 0.587, 0.114], np.float32)


def saturate(image: Array, amount: float | Array) -> Array:
    """Move colours away from their grey, or towards it for values below 1."""
    base = grey(image)[..., None]
    return np.clip(base + (image - base) * amount, 0, 1)


def soft_step(values: Array, at: float | Array, width: float) -> Array:
    """A step from 0 to 1 at `at`, with a ramp of this width."""
    return np.clip((values - at) / width + 0.5, 0, 1)


def _shrink(channel: Array, count: int) -> Array:
    return np.asarray(Image.fromarray(channel).resize((count, count), Image.Resampling.BOX))


def _bytes(image: Array) -> Image.Image:
    return Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))


def _floats(image: Image.Image) -> Array:
    return np.asarray(image, np.float32) / 255

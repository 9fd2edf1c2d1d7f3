"""Layers of a drawing, and the rasterization of shapes to antialiased masks.

Coordinates are fractions of the picture's side, x to the right and y down. A polygon is an array [points, 2].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

__all__ = [
    "Colour",
    "Layer",
    "Polygon",
    "box",
    "curve",
    "disc",
    "fill",
    "gradient",
    "mix",
    "paint",
    "rounded",
    "stroke",
    "under",
]

Colour = tuple[float, float, float]
Polygon = np.ndarray
_SUPERSAMPLE = 4


@dataclass(frozen=True)
class Layer:
    """One flat shape.

    Attributes:
        name: In the backdrop sky, sun, moon, stars, cloud, far, ground, water or scenery; in the content shadow (soft,
            on the ground), outline, object (in the caption's colour) or object-detail.
        mask: float32 [s, s], coverage 0 to 1.
        colour: sRGB 0 to 1, or one per pixel [s, s, 3].
    """

    name: str
    mask: np.ndarray
    colour: Colour | np.ndarray


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Mix two colours; `share` is the fraction of the other."""
    return (
        one[0] + share * (other[0] - one[0]),
        one[1] + share * (other[1] - one[1]),
        one[2] + share * (other[2] - one[2]),
    )


def disc(x: float, y: float, rx: float, ry: float | None = None, points: int = 48) -> Polygon:
    """An ellipse."""
    angle = np.arange(points) * (2 * np.pi / points)
    return np.stack([x + rx * np.cos(angle), y + (rx if ry is None else ry) * np.sin(angle)], axis=1)


def box(left: float, top: float, right: float, bottom: float, radius: float = 0.0) -> Polygon:
    """A rectangle with rounded corners."""
    return rounded([(left, top), (right, top), (right, bottom), (left, bottom)], radius)


def rounded(corners: Sequence[tuple[float, float]], radius: float | Sequence[float]) -> Polygon:
    """A polygon with round corners: parabolas that start and end `radius` from the corner; one radius, or one each."""
    corner = np.asarray(corners, float)
    before, after = np.roll(corner, 1, axis=0) - corner, np.roll(corner, -1, axis=0) - corner
    length = np.hypot(*after.T)
    reach = np.minimum(np.broadcast_to(radius, len(corner)), np.minimum(length, np.roll(length, 1)) / 2)
    start = corner + before * (reach / np.roll(length, 1))[:, None]
    end = corner + after * (reach / length)[:, None]
    t = np.linspace(0, 1, 9)[None, :, None]
    return ((1 - t) ** 2 * start[:, None] + 2 * t * (1 - t) * corner[:, None] + t**2 * end[:, None]).reshape(-1, 2)


def curve(points: Sequence[tuple[float, float]]) -> Polygon:
    """A smooth closed curve through the points (a Catmull-Rom spline)."""
    p1 = np.asarray(points, float)
    p0, p2, p3 = np.roll(p1, 1, axis=0), np.roll(p1, -1, axis=0), np.roll(p1, -2, axis=0)
    t = np.linspace(0, 1, 10, endpoint=False)[None, :, None]
    p0, p1, p2, p3 = (p[:, None] for p in (p0, p1, p2, p3))
    out = 2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    return out.reshape(-1, 2) / 2


def stroke(points: Sequence[tuple[float, float]], width: float) -> tuple[Polygon, ...]:
    """A line with round ends and joints, as polygons that overlap."""
    line = np.asarray(points, float)
    out = [disc(x, y, width / 2, points=20) for x, y in line]
    for (x0, y0), (x1, y1) in pairwise(line):
        scale = width / 2 / np.hypot(x1 - x0, y1 - y0)
        nx, ny = (y0 - y1) * scale, (x1 - x0) * scale
        out.append(np.array([(x0 + nx, y0 + ny), (x1 + nx, y1 + ny), (x1 - nx, y1 - ny), (x0 - nx, y0 - ny)]))
    return tuple(out)


def fill(polygons: Sequence[Polygon], size: int, *, grow: float = 0.0) -> np.ndarray:
    """The mask [size, size] of the polygons' union, with its edge moved outwards by `grow`."""
    mask = np.zeros((size, size), np.float32)
    every = np.concatenate(list(polygons))
    left, top = np.maximum(np.floor((every.min(0) - grow) * size).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil((every.max(0) + grow) * size).astype(int) + 1, size)
    if left >= right or top >= bottom:
        return mask
    canvas = Image.new("L", (_SUPERSAMPLE * (right - left), _SUPERSAMPLE * (bottom - top)))
    draw = ImageDraw.Draw(canvas)
    # Pillow's integer coordinates are the centres of pixels.
    offset = np.array([left, top]) * _SUPERSAMPLE + 0.5
    for polygon in polygons:
        outer = _grown(polygon, grow) if grow else polygon
        draw.polygon((outer * (size * _SUPERSAMPLE) - offset).ravel().tolist(), fill=255)
    mask[top:bottom, left:right] = np.asarray(canvas.reduce(_SUPERSAMPLE), np.float32) / 255
    return mask


def _grown(polygon: Polygon, by: float) -> Polygon:
    """Move each edge of the polygon outwards; corners keep their form, but move at most twice as far."""
    side = np.roll(polygon, -1, axis=0) - polygon
    length = np.hypot(*side.T)
    polygon, side = polygon[length > 1e-9], side[length > 1e-9] / length[length > 1e-9, None]
    x, y = polygon.T
    clockwise = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) > 0  # as seen, with y down
    normal = np.stack([side[:, 1], -side[:, 0]], axis=1) * (1 if clockwise else -1)
    both = np.roll(normal, 1, axis=0) + normal
    # Half of |both| is the cosine of half the turn; the corner moves by 1 / that cosine.
    cosine = np.hypot(*both.T) / 2
    return polygon + by * both / (2 * np.maximum(cosine, 1e-6) * np.maximum(cosine, 0.5))[:, None]


def under(height: np.ndarray) -> np.ndarray:
    """The mask [s, s] of everything below a line, given by its y in each column, [s]."""
    size = len(height)
    return np.clip(np.arange(1, size + 1, dtype=np.float32)[:, None] - (height * size)[None], 0, 1).astype(np.float32)


def gradient(stops: Sequence[tuple[float, Colour]], size: int) -> np.ndarray:
    """A vertical gradient, [size, size, 3], through stops (y, colour)."""
    y = (np.arange(size) + 0.5) / size
    at = [stop for stop, _ in stops]
    rows = np.stack([np.interp(y, at, [colour[channel] for _, colour in stops]) for channel in range(3)], axis=1)
    return np.broadcast_to(rows[:, None].astype(np.float32), (size, size, 3))


def paint(layers: Sequence[Layer]) -> np.ndarray:
    """Paint the layers over each other: float32 [s, s, 3], sRGB 0 to 1."""
    out = np.zeros((3, *layers[0].mask.shape), np.float32)  # planar, for numpy adds planes several times faster
    for layer in layers:
        lit = layer.mask > 0
        rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
        if not len(rows):
            continue
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        colour = np.asarray(layer.colour, np.float32)
        planes = colour[:, None, None] if colour.ndim == 1 else np.moveaxis(colour[part], -1, 0)
        under = out[(slice(None), *part)]
        under += layer.mask[part] * (planes - under)
    return np.ascontiguousarray(np.moveaxis(out, 0, -1))

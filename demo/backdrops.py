"""Five places at three times of day, as layers from back to front, pale or dark, never in an object's colour."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from lorablend.demo.canvas import Colour, Layer, Polygon, box, disc, fill, gradient, mix, rounded, under
from lorablend.demo.grammar import Scene

__all__ = ["backdrop"]

_HORIZON = 0.62
# For each time the colours of the sky at the top, in the middle and at the horizon, and of the clouds.
_SKY: Mapping[str, tuple[Colour, Colour, Colour, Colour]] = MappingProxyType(
    {
        "day": ((0.50, 0.78, 0.94), (0.74, 0.89, 0.97), (0.94, 0.97, 0.96), (1.00, 1.00, 1.00)),
        "sunset": ((0.45, 0.41, 0.64), (0.86, 0.60, 0.63), (1.00, 0.87, 0.70), (0.98, 0.79, 0.73)),
        "night": ((0.06, 0.08, 0.22), (0.12, 0.16, 0.36), (0.29, 0.35, 0.58), (0.24, 0.29, 0.50)),
    }
)
# For each place and time the colours that the place's function below unpacks.
_PALETTES: Mapping[str, Mapping[str, tuple[Colour, ...]]] = MappingProxyType(
    {
        # far hills, middle hills, near hill, flowers
        "meadow": {
            "day": ((0.73, 0.88, 0.76), (0.77, 0.89, 0.58), (0.68, 0.83, 0.46), (1.00, 0.99, 0.93)),
            "sunset": ((0.75, 0.62, 0.63), (0.82, 0.71, 0.50), (0.68, 0.63, 0.43), (1.00, 0.89, 0.78)),
            "night": ((0.19, 0.28, 0.46), (0.15, 0.30, 0.40), (0.12, 0.25, 0.32), (0.60, 0.69, 0.78)),
        },
        # island, water, glints, foam, sand
        "sea": {
            "day": ((0.66, 0.81, 0.82), (0.45, 0.76, 0.80), (0.80, 0.93, 0.94), (0.98, 0.99, 0.98), (0.95, 0.87, 0.70)),
            "sunset": ((0.68, 0.50, 0.60), (0.60, 0.51, 0.67), (0.96, 0.80, 0.72), (1, 0.91, 0.85), (0.89, 0.73, 0.62)),
            "night": (
                (0.19, 0.25, 0.45),
                (0.12, 0.25, 0.46),
                (0.38, 0.50, 0.70),
                (0.58, 0.67, 0.82),
                (0.34, 0.34, 0.46),
            ),
        },
        # mesas, far dune, cactus, near dune
        "desert": {
            "day": ((0.90, 0.76, 0.68), (0.97, 0.88, 0.71), (0.47, 0.62, 0.50), (0.93, 0.80, 0.60)),
            "sunset": ((0.78, 0.55, 0.56), (0.91, 0.73, 0.61), (0.47, 0.43, 0.47), (0.81, 0.60, 0.52)),
            "night": ((0.25, 0.24, 0.45), (0.35, 0.32, 0.51), (0.15, 0.22, 0.34), (0.29, 0.26, 0.44)),
        },
        # mountains, their caps, far snow, pines, near snow, flakes
        "snow": {
            "day": (
                (0.74, 0.82, 0.90),
                (1, 1, 1),
                (0.89, 0.94, 0.98),
                (0.50, 0.67, 0.70),
                (0.82, 0.89, 0.96),
                (1, 1, 1),
            ),
            "sunset": (
                *((0.70, 0.59, 0.71), (1.00, 0.90, 0.85), (0.93, 0.83, 0.85)),
                *((0.53, 0.50, 0.63), (0.82, 0.76, 0.86), (1.00, 0.95, 0.93)),
            ),
            "night": (
                *((0.24, 0.30, 0.53), (0.62, 0.70, 0.88), (0.46, 0.54, 0.76)),
                *((0.15, 0.24, 0.42), (0.52, 0.60, 0.80), (0.80, 0.85, 0.95)),
            ),
        },
        # far houses, near houses, their windows, pavement, road
        "city": {
            "day": ((0.80, 0.87, 0.92), (0.63, 0.73, 0.82), (0.88, 0.94, 0.97), (0.91, 0.90, 0.88), (0.74, 0.75, 0.80)),
            "sunset": ((0.81, 0.63, 0.66), (0.63, 0.51, 0.64), (1, 0.87, 0.66), (0.85, 0.74, 0.74), (0.62, 0.54, 0.63)),
            "night": (
                (0.18, 0.22, 0.43),
                (0.12, 0.15, 0.32),
                (0.97, 0.86, 0.56),
                (0.34, 0.36, 0.52),
                (0.23, 0.25, 0.41),
            ),
        },
    }
)


def backdrop(scene: Scene, rng: np.random.Generator, size: int) -> list[Layer]:
    """The layers of sky, sun or moon, and place."""
    top, middle, low, cloud = _SKY[scene.time]
    whole = np.ones((size, size), np.float32)
    out = [Layer("sky", whole, gradient([(0, top), (0.36, middle), (_HORIZON + 0.06, low)], size))]
    # Things that may be on either side avoid the object's.
    side = {"left": 1, "right": -1}.get(scene.position, 1 if rng.random() < 0.5 else -1)
    out += _LIGHTS[scene.time](side, rng, size)
    out += _clouds(cloud, rng, size, 2 if scene.time == "night" else 3)
    out += _PLACES[scene.place](scene.time, _PALETTES[scene.place][scene.time], side, rng, size)
    return out


def _day(side: int, rng: np.random.Generator, size: int) -> list[Layer]:
    x, y = 0.5 + side * rng.uniform(0.31, 0.37), rng.uniform(0.13, 0.18)
    return [
        Layer("sun", fill([disc(x, y, 0.115)], size) * np.float32(0.5), (1.0, 0.97, 0.80)),
        Layer("sun", fill([disc(x, y, 0.078)], size), (1.0, 0.92, 0.58)),
    ]


def _sunset(side: int, rng: np.random.Generator, size: int) -> list[Layer]:
    x, y = 0.5 + side * rng.uniform(0.26, 0.34), rng.uniform(0.47, 0.51)
    return [
        Layer("sun", fill([disc(x, y, 0.2)], size) * np.float32(0.35), (1.0, 0.90, 0.72)),
        Layer("sun", fill([disc(x, y, 0.13)], size), (1.0, 0.93, 0.78)),
    ]


def _night(side: int, rng: np.random.Generator, size: int) -> list[Layer]:
    x, y = 0.5 + side * rng.uniform(0.31, 0.37), rng.uniform(0.14, 0.19)
    # One star per cell, so that they never crowd.
    stars = []
    for column, row in ((column, row) for row in range(3) for column in range(5)):
        sx, sy = (column + rng.uniform(0.15, 0.85)) / 5, (row + rng.uniform(0.2, 0.8)) * 0.15
        radius = rng.uniform(0.0055, 0.0095)
        if np.hypot(sx - x, sy - y) > 0.14:
            stars.append(disc(sx, sy, radius, points=12))
    moon = np.clip(fill([disc(x, y, 0.082)], size) - fill([disc(x - side * 0.036, y - 0.018, 0.07)], size), 0, 1)
    return [
        Layer("stars", fill(stars, size), (0.93, 0.94, 0.86)),
        Layer("moon", fill([disc(x, y, 0.125)], size) * np.float32(0.16), (0.80, 0.85, 0.98)),
        Layer("moon", moon, (0.99, 0.96, 0.80)),
    ]


_LIGHTS: Mapping[str, Callable[[int, np.random.Generator, int], list[Layer]]] = MappingProxyType(
    {"day": _day, "sunset": _sunset, "night": _night}
)


def _clouds(colour: Colour, rng: np.random.Generator, size: int, count: int) -> list[Layer]:
    """Flat-bottomed clouds, one in each column of the sky."""
    puffs = []
    for column in range(count):
        x, y = (column + rng.uniform(0.25, 0.75)) / count, rng.uniform(0.14, 0.4)
        scale = rng.uniform(0.75, 1.1)
        w, h = 0.1 * scale, 0.045 * scale
        puffs += [
            box(x - w, y - h * 0.6, x + w, y + h * 0.6, h * 0.6),
            disc(x - 0.25 * w, y - 0.5 * h, h * 1.05, points=28),
            disc(x + 0.35 * w, y - 0.3 * h, h * 0.8, points=28),
        ]
    return [Layer("cloud", fill(puffs, size) * np.float32(0.85), colour)]


def _wave(rng: np.random.Generator, size: int, base: float, swing: float, waves: float) -> np.ndarray:
    """A rolling line [size]: heights around `base`, about `waves` crests wide."""
    x = (np.arange(size) + 0.5) / size * 2 * np.pi
    a, b = rng.uniform(0, 2 * np.pi, 2)
    return base + swing * (0.7 * np.sin(waves * x + a) + 0.3 * np.sin(2.3 * waves * x + b))


def _fade(colour: Colour, time: str, size: int, top: float, bottom: float, lift: float = 0.22) -> np.ndarray:
    """Ground that is paler, like the sky, towards the horizon."""
    return gradient([(top, mix(colour, _SKY[time][2], lift)), (bottom, colour)], size)


def _meadow(time: str, palette: Sequence[Colour], side: int, rng: np.random.Generator, size: int) -> list[Layer]:
    far, middle, near, flower = palette
    ridge, hill, front = (
        _wave(rng, size, 0.60, 0.04, 1.3),
        _wave(rng, size, 0.67, 0.03, 0.9),
        _wave(rng, size, 0.77, 0.02, 0.8),
    )
    flowers = [
        disc((column + rng.uniform(0.2, 0.8)) / 6, rng.uniform(0.915, 0.97), 0.013, points=16) for column in range(6)
    ]
    return [
        Layer("far", under(ridge), _fade(far, time, size, 0.55, 0.7)),
        Layer("ground", under(hill), _fade(middle, time, size, 0.64, 0.8)),
        Layer("ground", under(front), _fade(near, time, size, 0.74, 1.0)),
        Layer("scenery", fill(flowers, size), flower),
    ]


def _sea(time: str, palette: Sequence[Colour], side: int, rng: np.random.Generator, size: int) -> list[Layer]:
    rock, water, glint, white, sand = palette
    shore = _wave(rng, size, 0.775, 0.012, 1.4)
    glints = []
    for row, y in enumerate((0.64, 0.685, 0.73)):
        for column in range(2):
            x, w = (column + rng.uniform(0.1, 0.9)) / 2, (0.045 + 0.02 * row) * rng.uniform(0.8, 1.2)
            glints.append(box(x - w, y - 0.006, x + w, y + 0.006, 0.006))
    x = rng.uniform(0.1, 0.9)
    island = rounded([(x - 0.2, 0.605), (x - 0.06, 0.545), (x + 0.05, 0.565), (x + 0.19, 0.605)], 0.05)
    return [
        Layer("far", fill([island], size), rock),
        Layer("water", under(np.full(size, 0.6)), _fade(water, time, size, 0.6, 0.78, 0.35)),
        Layer("scenery", fill(glints, size), glint),
        Layer("water", under(shore), white),
        Layer("ground", under(shore + 0.022), _fade(sand, time, size, 0.77, 1.0, 0.2)),
    ]


def _desert(time: str, palette: Sequence[Colour], side: int, rng: np.random.Generator, size: int) -> list[Layer]:
    rock, far, green, near = palette
    x = rng.uniform(0.2, 0.8)
    mesas = [
        rounded([(mx - w, 0.66), (mx - 0.75 * w, 0.6 - h), (mx + 0.75 * w, 0.6 - h), (mx + w, 0.66)], 0.012)
        for mx, w, h in ((x, 0.13, 0.13), (x + 0.24, 0.08, 0.09), (x - 0.36, 0.1, 0.08))
    ]
    dune, front = _wave(rng, size, 0.645, 0.02, 0.8), _wave(rng, size, 0.76, 0.03, 0.7)
    cactus = _cactus(0.5 + side * rng.uniform(0.38, 0.43), 0.74, 0.18)
    return [
        Layer("far", fill(mesas, size), rock),
        Layer("ground", under(dune), _fade(far, time, size, 0.62, 0.8)),
        Layer("scenery", fill(cactus, size), green),
        Layer("ground", under(front), _fade(near, time, size, 0.73, 1.0)),
    ]


def _cactus(x: float, foot: float, height: float) -> list[Polygon]:
    w = 0.1 * height
    return [
        box(x - w, foot - height, x + w, foot + 0.1, w),
        box(x - 4 * w, foot - 0.72 * height, x - 2.5 * w, foot - 0.3 * height, 0.75 * w),
        box(x - 4 * w, foot - 0.45 * height, x, foot - 0.3 * height, 0.75 * w),
        box(x + 2.5 * w, foot - 0.85 * height, x + 4 * w, foot - 0.4 * height, 0.75 * w),
        box(x, foot - 0.55 * height, x + 4 * w, foot - 0.4 * height, 0.75 * w),
    ]


def _snow(time: str, palette: Sequence[Colour], side: int, rng: np.random.Generator, size: int) -> list[Layer]:
    rock, cap, far, green, near, flake = palette
    x = rng.uniform(0.15, 0.45)
    peaks, caps, pines = [], [], []
    for px, top, w in ((x, 0.36, 0.3), (x + 0.42, 0.43, 0.27)):
        peaks.append(rounded([(px - w, 0.7), (px, top), (px + w, 0.7)], 0.02))
        slope = w / (0.7 - top)
        low, notch = top + 0.09, top + 0.068
        caps.append(
            rounded(
                [
                    (px, top),
                    (px + slope * 0.09, low),
                    (px + 0.028, notch),
                    (px, low + 0.01),
                    (px - 0.032, notch),
                    (px - slope * 0.09, low),
                ],
                [0.02, 0.004, 0.008, 0.008, 0.008, 0.004],
            )
        )
    dune, front = _wave(rng, size, 0.655, 0.02, 1.1), _wave(rng, size, 0.765, 0.022, 0.8)
    for column in range(6):
        px, h = (column + rng.uniform(0.2, 0.8)) / 6, rng.uniform(0.09, 0.13)
        foot = 0.68 + rng.uniform(0, 0.015)
        for tier in range(2):
            y, w = foot - tier * 0.38 * h, (0.36 - 0.1 * tier) * h
            pines.append(rounded([(px - w, y), (px, y - 0.68 * h), (px + w, y)], 0.006))
    out = [
        Layer("far", fill(peaks, size), rock),
        Layer("far", fill(caps, size), cap),
        Layer("ground", under(dune), _fade(far, time, size, 0.62, 0.8)),
        Layer("scenery", fill(pines, size), green),
        Layer("ground", under(front), _fade(near, time, size, 0.75, 1.0, 0.4)),
    ]
    if time != "night":  # flakes would be taken for stars
        cells = ((column, row) for row in range(3) for column in range(5))
        flakes = [
            disc((c + rng.uniform(0.1, 0.9)) / 5, (r + rng.uniform(0.1, 0.9)) * 0.19, 0.0085, points=16)
            for c, r in cells
        ]
        out.append(Layer("scenery", fill(flakes, size), flake))
    return out


def _city(time: str, palette: Sequence[Colour], side: int, rng: np.random.Generator, size: int) -> list[Layer]:
    far, near, glass, pavement, road = palette
    back, front = _skyline(rng, 0.5, 0.34, 0.13), _skyline(rng, 0.6, 0.46, 0.18)
    windows: list[Polygon] = []
    for left, top, right in front:
        columns = max(1, round((right - left) / 0.07))
        for column in range(columns):
            for row in range(int((0.735 - top) / 0.075)):
                x, y = left + (column + 0.5) * (right - left) / columns, top + 0.045 + 0.075 * row
                if time != "night" or rng.random() < 0.6:
                    windows.append(box(x - 0.014, y - 0.017, x + 0.014, y + 0.017))
    kerb = np.full(size, 0.75)
    return [
        Layer("far", fill([box(left, top, right, 0.8) for left, top, right in back], size), far),
        Layer("far", fill([box(left, top, right, 0.8) for left, top, right in front], size), near),
        Layer("scenery", fill(windows, size), glass),
        Layer("ground", under(kerb), pavement),
        Layer("ground", under(kerb + 0.035), _fade(road, time, size, 0.76, 1.0, 0.2)),
    ]


def _skyline(rng: np.random.Generator, low: float, high: float, width: float) -> list[tuple[float, float, float]]:
    """The buildings from edge to edge, as (left, top, right)."""
    out, x = [], -rng.uniform(0, width)
    while x < 1:
        right = x + width * rng.uniform(0.75, 1.25)
        out.append((x, rng.uniform(high, low), right))
        x = right + 0.01
    return out


_PLACES: Mapping[str, Callable[[str, Sequence[Colour], int, np.random.Generator, int], list[Layer]]] = MappingProxyType(
    {"meadow": _meadow, "sea": _sea, "desert": _desert, "snow": _snow, "city": _city}
)

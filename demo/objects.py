"""The twelve objects as figures: flat parts in a box of side 1 around (0, 0), x to the right and y down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np

from lorablend.demo.canvas import Colour, Polygon, box, curve, disc, mix, rounded, stroke

__all__ = ["BODY", "FIGURES", "Figure", "Shape", "tilted", "tint"]

# The colours by name, far apart in hue and lightness, and from every backdrop.
BODY: Mapping[str, Colour] = MappingProxyType(
    {
        "red": (0.89, 0.16, 0.18),
        "orange": (1.00, 0.54, 0.08),
        "yellow": (1.00, 0.84, 0.16),
        "green": (0.10, 0.60, 0.30),
        "blue": (0.13, 0.38, 0.87),
        "purple": (0.54, 0.25, 0.76),
        "pink": (1.00, 0.54, 0.74),
        "white": (0.98, 0.98, 0.97),
    }
)
_SHADE: Mapping[str, Colour] = MappingProxyType(
    {
        "red": (0.68, 0.09, 0.18),
        "orange": (0.86, 0.37, 0.05),
        "yellow": (0.94, 0.70, 0.06),
        "green": (0.05, 0.44, 0.27),
        "blue": (0.09, 0.26, 0.66),
        "purple": (0.40, 0.16, 0.60),
        "pink": (0.91, 0.36, 0.61),
        "white": (0.80, 0.84, 0.91),
    }
)
_FIXED: Mapping[str, Colour] = MappingProxyType(
    {
        "ink": (0.16, 0.17, 0.28),
        "cream": (1.00, 0.96, 0.86),
        "wood": (0.58, 0.38, 0.26),
        "glass": (0.74, 0.90, 0.96),
        "stone": (0.55, 0.56, 0.64),
        "flame": (1.00, 0.72, 0.20),
        "signal": (0.93, 0.20, 0.22),
        "scarf": (0.16, 0.62, 0.62),
    }
)


@dataclass(frozen=True)
class Shape:
    """Polygons of one tint; see `tint`."""

    tint: str
    polygons: tuple[Polygon, ...]

    @property
    def name(self) -> str:
        """The layer's name: "object" in the caption's colour, "object-detail" otherwise."""
        return "object" if self.tint == "body" else "object-detail"


@dataclass(frozen=True)
class Figure:
    """Shapes from back to front; a figure that does not stand on the ground is in the air."""

    parts: tuple[Shape, ...]
    stands: bool = True

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom)"""
        every = np.concatenate([polygon for part in self.parts for polygon in part.polygons])
        return (*every.min(0).tolist(), *every.max(0).tolist())


def tint(name: str, colour: str) -> Colour:
    """The colour of a tint in a figure of this colour.

    Args:
        name: "body", its "shade", "light" or "outline"; "pale", a cream that shows on white too; or a fixed colour.
    """
    body = BODY[colour]
    if name == "body":
        return body
    if name == "shade" or (colour == "white" and name in ("light", "pale")):
        return _SHADE[colour]
    if name == "light":
        return mix(body, (1.0, 1.0, 1.0), 0.42)
    if name == "outline":
        return mix(body, (0.10, 0.10, 0.22), 0.8)
    return _FIXED["cream" if name == "pale" else name]


def _shape(tint: str, *polygons: Polygon) -> Shape:
    return Shape(tint, polygons)


def _arc(x: float, y: float, r: float, start: float, end: float, points: int = 14) -> list[tuple[float, float]]:
    """Points of an arc; angles in degrees, 0 to the right, 90 down."""
    angle = np.radians(np.linspace(start, end, points))
    return list(zip((x + r * np.cos(angle)).tolist(), (y + r * np.sin(angle)).tolist(), strict=True))


def _house() -> Figure:
    return Figure(
        (
            _shape("stone", box(0.18, -0.46, 0.32, -0.1, 0.02)),
            _shape("body", box(-0.38, -0.12, 0.38, 0.5, 0.04)),
            _shape("shade", rounded([(-0.5, -0.04), (0, -0.5), (0.5, -0.04)], 0.06)),
            _shape("wood", box(-0.25, 0.18, -0.04, 0.5, 0.06)),
            _shape("pale", box(0.08, 0.12, 0.28, 0.32, 0.02)),
            _shape("cream", disc(0, -0.19, 0.07)),
        )
    )


def _tree() -> Figure:
    return Figure(
        (
            _shape("wood", rounded([(-0.07, 0.0), (0.07, 0.0), (0.11, 0.5), (-0.11, 0.5)], 0.02)),
            _shape("body", disc(0, -0.2, 0.3), disc(-0.2, 0.02, 0.23), disc(0.2, 0.02, 0.23)),
            _shape("light", disc(-0.1, -0.27, 0.12, 0.1), disc(-0.25, -0.02, 0.07, 0.055)),
        )
    )


def _boat() -> Figure:
    return Figure(
        (
            _shape("wood", box(-0.045, -0.5, 0.025, 0.26, 0.02)),
            _shape("cream", rounded([(-0.08, -0.4), (-0.08, 0.12), (-0.42, 0.12)], 0.04)),
            _shape("body", rounded([(0.05, -0.48), (0.47, 0.12), (0.05, 0.12)], 0.04)),
            _shape("body", rounded([(-0.5, 0.19), (0.5, 0.19), (0.36, 0.5), (-0.34, 0.5)], [0.03, 0.03, 0.14, 0.14])),
            _shape("pale", box(-0.44, 0.25, 0.44, 0.32, 0.03)),
        )
    )


def _car() -> Figure:
    return Figure(
        (
            _shape(
                "body",
                rounded([(-0.36, 0.05), (-0.27, -0.38), (0.17, -0.38), (0.34, 0.05)], [0.0, 0.12, 0.14, 0.0]),
                box(-0.5, -0.06, 0.5, 0.26, 0.1),
            ),
            _shape(
                "glass",
                rounded([(-0.26, -0.04), (-0.2, -0.29), (-0.05, -0.29), (-0.05, -0.04)], 0.04),
                rounded([(0.02, -0.04), (0.02, -0.29), (0.12, -0.29), (0.23, -0.04)], 0.04),
            ),
            _shape("flame", disc(0.44, 0.07, 0.05)),
            _shape("ink", disc(-0.27, 0.24, 0.14), disc(0.27, 0.24, 0.14)),
            _shape("cream", disc(-0.27, 0.24, 0.06), disc(0.27, 0.24, 0.06)),
        )
    )


def _fish() -> Figure:
    return Figure(
        (
            _shape(
                "shade",
                curve([(-0.2, 0.0), (-0.38, -0.16), (-0.5, -0.27), (-0.44, 0.0), (-0.5, 0.27), (-0.38, 0.16)]),
                curve([(-0.2, -0.2), (-0.08, -0.4), (0.12, -0.38), (0.2, -0.2)]),
                curve([(-0.1, 0.2), (-0.1, 0.38), (0.06, 0.36), (0.12, 0.2)]),
            ),
            _shape(
                "body",
                curve(
                    [
                        (-0.34, 0),
                        (-0.14, -0.23),
                        (0.16, -0.28),
                        (0.42, -0.12),
                        (0.5, 0.04),
                        (0.34, 0.21),
                        (0.08, 0.28),
                        (-0.16, 0.2),
                    ]
                ),
            ),
            _shape("light", curve([(-0.06, 0.02), (0.02, -0.09), (-0.18, -0.06), (-0.22, 0.04), (-0.1, 0.12)])),
            _shape("cream", disc(0.27, -0.06, 0.1)),
            _shape("ink", disc(0.29, -0.055, 0.055)),
        ),
        stands=False,
    )


def _star() -> Figure:
    corners = []
    for spike in range(10):
        radius, angle = (0.26 if spike % 2 else 0.53), np.radians(36 * spike - 90)
        corners.append((float(radius * np.cos(angle)), float(radius * np.sin(angle)) + 0.04))
    return Figure(
        (
            _shape("body", rounded(corners, [0.09, 0.05] * 5)),
            _shape("ink", *_face(0, 0, 1)),
        ),
        stands=False,
    )


def _balloon() -> Figure:
    return Figure(
        (
            _shape("shade", rounded([(-0.13, 0.2), (0.13, 0.2), (0.1, 0.37), (-0.1, 0.37)], 0.0)),
            _shape(
                "body",
                curve(
                    [
                        (0, -0.5),
                        (-0.25, -0.42),
                        (-0.37, -0.2),
                        (-0.33, 0.02),
                        (-0.14, 0.26),
                        (0.14, 0.26),
                        (0.33, 0.02),
                        (0.37, -0.2),
                        (0.25, -0.42),
                    ]
                ),
            ),
            _shape(
                "light",
                curve(
                    [
                        (0, -0.5),
                        (-0.13, -0.38),
                        (-0.18, -0.18),
                        (-0.15, 0.04),
                        (-0.06, 0.27),
                        (0.06, 0.27),
                        (0.15, 0.04),
                        (0.18, -0.18),
                        (0.13, -0.38),
                    ]
                ),
            ),
            _shape(
                "body",
                curve(
                    [
                        (0, -0.5),
                        (-0.05, -0.38),
                        (-0.065, -0.18),
                        (-0.055, 0.04),
                        (-0.02, 0.27),
                        (0.02, 0.27),
                        (0.055, 0.04),
                        (0.065, -0.18),
                        (0.05, -0.38),
                    ]
                ),
            ),
            _shape("wood", rounded([(-0.13, 0.35), (0.13, 0.35), (0.1, 0.5), (-0.1, 0.5)], 0.03)),
        ),
        stands=False,
    )


def _mushroom() -> Figure:
    return Figure(
        (
            _shape(
                "cream",
                curve(
                    [(-0.13, 0.02), (-0.15, 0.26), (-0.21, 0.46), (0, 0.5), (0.21, 0.46), (0.15, 0.26), (0.13, 0.02)]
                ),
            ),
            _shape("body", rounded([*_arc(0, 0.02, 0.5, 180, 360, 25)], [0.06, *[0.02] * 23, 0.06])),
            _shape("shade", box(-0.46, -0.02, 0.46, 0.07, 0.045)),
            _shape("pale", disc(-0.02, -0.28, 0.1), disc(-0.27, -0.14, 0.07), disc(0.25, -0.15, 0.085)),
        )
    )


def _rocket() -> Figure:
    return Figure(
        (
            _shape("flame", curve([(-0.1, 0.3), (-0.09, 0.4), (0, 0.5), (0.09, 0.4), (0.1, 0.3)])),
            _shape(
                "shade",
                rounded([(-0.14, 0.02), (-0.34, 0.24), (-0.34, 0.42), (-0.12, 0.32)], 0.05),
                rounded([(0.14, 0.02), (0.34, 0.24), (0.34, 0.42), (0.12, 0.32)], 0.05),
            ),
            _shape(
                "body",
                curve(
                    [(0, -0.5), (-0.13, -0.33), (-0.19, -0.08), (-0.15, 0.3), (0.15, 0.3), (0.19, -0.08), (0.13, -0.33)]
                ),
            ),
            _shape(
                "shade", curve([(0, -0.5), (-0.06, -0.43), (-0.135, -0.3), (0, -0.27), (0.135, -0.3), (0.06, -0.43)])
            ),
            _shape("cream", disc(0, -0.08, 0.11)),
            _shape("glass", disc(0, -0.08, 0.075)),
        ),
        stands=False,
    )


def _umbrella() -> Figure:
    dome = _arc(0, 0.0, 0.5, 180, 360, 25)
    edge = [*_scallop(0.5, 0.25), *_scallop(0.25, 0), *_scallop(0, -0.25), *_scallop(-0.25, -0.5)]
    panel = [
        (0, -0.5),
        *_bow((0, -0.5), (-0.25, 0), -0.09),
        *_scallop(-0.25, 0),
        *_scallop(0, 0.25),
        *_bow((0.25, 0), (0, -0.5), 0.09),
    ]
    return Figure(
        (
            _shape("wood", *stroke([(0, -0.48), *_arc(0.09, 0.38, 0.09, 180, 20)], 0.05)),
            _shape("body", np.array([*dome, *edge]) * (1, 0.92)),
            _shape("light", np.array(panel) * (1, 0.92)),
        )
    )


def _scallop(start: float, end: float) -> list[tuple[float, float]]:
    """The hem of one panel of an umbrella, bent up."""
    t = np.linspace(0, 1, 9)
    return list(zip((start + (end - start) * t).tolist(), (-0.22 * t * (1 - t)).tolist(), strict=True))


def _bow(start: tuple[float, float], end: tuple[float, float], bulge: float) -> list[tuple[float, float]]:
    """A line between two points, bent sideways by `bulge` in x."""
    t = np.linspace(0, 1, 9)[1:-1]
    x = start[0] + (end[0] - start[0]) * t + 4 * bulge * t * (1 - t)
    return list(zip(x.tolist(), (start[1] + (end[1] - start[1]) * t).tolist(), strict=True))


def _cup() -> Figure:
    return Figure(
        (
            _shape("body", *stroke(_arc(0.22, 0.08, 0.2, -90, 90), 0.1)),
            _shape(
                "body", rounded([(-0.5, -0.36), (0.28, -0.36), (0.22, 0.44), (-0.44, 0.44)], [0.02, 0.02, 0.16, 0.16])
            ),
            _shape("wood", disc(-0.11, -0.35, 0.39, 0.085)),
            _shape("ink", *_face(-0.11, 0.02, 1.25)),
            _shape("light", disc(-0.31, 0.15, 0.055, 0.04), disc(0.09, 0.15, 0.055, 0.04)),
        )
    )


def _face(x: float, y: float, scale: float) -> tuple[Polygon, ...]:
    """Two eyes and a smile."""
    eyes = [disc(x + side * 0.1 * scale, y, 0.045 * scale, 0.06 * scale) for side in (-1, 1)]
    return (*eyes, *stroke(_arc(x, y + 0.08 * scale, 0.07 * scale, 20, 160), 0.03 * scale))


def _heart() -> Figure:
    # Two halves, since an outline grown around the notch of one would cross itself.
    t = np.linspace(0, np.pi, 40)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    half = np.stack([x / 32, (y - 2.5) / 32], axis=1)
    shine = tilted(disc(0, 0, 0.11, 0.06), -40, (-0.27, -0.22))
    return Figure((_shape("body", half, half * (-1, 1)), _shape("light", shine)), stands=False)


def tilted(polygon: Polygon, degrees: float, at: tuple[float, float]) -> Polygon:
    """The polygon turned clockwise around (0, 0), then moved there."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return polygon @ np.array([[c, s], [-s, c]]) + at


FIGURES: Mapping[str, Figure] = MappingProxyType(
    {
        "house": _house(),
        "tree": _tree(),
        "boat": _boat(),
        "car": _car(),
        "fish": _fish(),
        "star": _star(),
        "balloon": _balloon(),
        "mushroom": _mushroom(),
        "rocket": _rocket(),
        "umbrella": _umbrella(),
        "cup": _cup(),
        "heart": _heart(),
    }
)

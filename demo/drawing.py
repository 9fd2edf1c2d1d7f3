"""Draw scenes: flat shapes from back to front, plain or in a style."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from lorablend.demo.backdrops import backdrop
from lorablend.demo.canvas import Layer, Polygon, disc, fill, paint
from lorablend.demo.grammar import Scene
from lorablend.demo.objects import FIGURES, Figure, Shape, tint
from lorablend.demo.styles import STYLES
from lorablend.demo.subjects import SUBJECTS

__all__ = ["Layer", "boxes", "draw", "layers"]

Box = tuple[float, float, float, float]

# The group's centre, in picture widths from the middle; wide groups are closer to it, to stay inside.
_SIDES = {"left": -0.25, "middle": 0.0, "right": 0.25}
_MARGIN = 0.03
# The longer side of an object, alone and in a group. Large ones are at least 1.4 times as long as small ones.
_LENGTHS = {"small": (0.23, 0.175), "large": (0.42, 0.33)}
_GROUP_WIDTH = 0.54
_FOOT, _AIR = 0.885, 0.47  # y where the lowest copy stands; y of the middle of a flying group
_OUTLINE = 0.0085


@dataclass(frozen=True)
class _Copy:
    """A figure in the picture, by its box's centre and its scale in x and y."""

    figure: Figure
    x: float
    y: float
    wide: float
    high: float

    def polygons(self, part: Shape) -> list[Polygon]:
        left, top, right, bottom = self.figure.bounds
        scale = np.array([self.wide, self.high])
        offset = (self.x, self.y) - scale * ((left + right) / 2, (top + bottom) / 2)
        return [polygon * scale + offset for polygon in part.polygons]

    @property
    def box(self) -> Box:
        left, top, right, bottom = self.figure.bounds
        x, y = self.wide * (right - left) / 2, self.high * (bottom - top) / 2
        return (self.x - x, self.y - y, self.x + x, self.y + y)


def layers(scene: Scene, seed: int, size: int = 256, subject: str | None = None) -> list[Layer]:
    """The scene's shapes from back to front, with masks [size, size]; the same arguments give the same bytes.

    Args:
        seed: Moves things by a few pixels and changes the backdrop's details.
        subject: A character of subjects.SUBJECTS in place of the object.
    """
    figure = _figure(scene, subject)
    copies = _copies(scene, seed, figure)
    parts = [(part, [polygon for copy in copies for polygon in copy.polygons(part)]) for part in figure.parts]
    out = backdrop(scene, np.random.default_rng([seed, 1]), size)
    if figure.stands:
        spots = [copy.box for copy in copies]
        feet = [disc((left + right) / 2, bottom, 0.46 * (right - left), 0.018) for left, _, right, bottom in spots]
        out.append(Layer("shadow", fill(feet, size) * np.float32(0.25), (0.10, 0.10, 0.25)))
    every = [polygon for _, polygons in parts for polygon in polygons]
    out.append(Layer("outline", fill(every, size, grow=_OUTLINE), tint("outline", scene.colour)))
    out += [Layer(part.name, fill(polygons, size), tint(part.tint, scene.colour)) for part, polygons in parts]
    return out


def boxes(scene: Scene, seed: int, size: int = 256, subject: str | None = None) -> list[Box]:
    """The box of each copy, (left, top, right, bottom), 0 to 1 at any size, without its outline."""
    return [copy.box for copy in _copies(scene, seed, _figure(scene, subject))]


def draw(scene: Scene, seed: int, size: int = 256, style: str | None = None, subject: str | None = None) -> Image.Image:
    """Draw the scene as an RGB picture of size × size pixels.

    Args:
        style: One of styles.STYLES; None draws it plain.
        subject: A character of subjects.SUBJECTS in place of the object.
    """
    drawn = layers(scene, seed, size, subject)
    pixels = paint(drawn) if style is None else STYLES[style](drawn, seed)
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))


def _figure(scene: Scene, subject: str | None) -> Figure:
    if subject is None:
        return FIGURES[scene.object]
    return SUBJECTS[subject]


def _copies(scene: Scene, seed: int, figure: Figure) -> list[_Copy]:
    """Place one copy, two side by side, or two and a third above them (behind them, if they stand)."""
    rng = np.random.default_rng([seed, 2])
    left, top, right, bottom = figure.bounds
    width, height = right - left, bottom - top
    one, many = _LENGTHS[scene.size]
    scale = (one if scene.count == 1 else many) / max(width, height)
    gap = 0.03
    if scene.count > 1:
        scale = min(scale, (_GROUP_WIDTH - gap) / (2 * width))
    step_x, step_y = (scale * width + gap) / 2, scale * height + gap
    half = scale * width / 2 if scene.count == 1 else scale * width + gap / 2
    room = 0.5 - _MARGIN - half
    x = 0.5 + np.clip(_SIDES[scene.position], -room, room) + rng.uniform(-0.012, 0.012)
    spots = {1: [(0, 0)], 2: [(-1, 0), (1, 0)], 3: [(0, -1), (-1, 0), (1, 0)]}[scene.count]
    lowest = _FOOT - scale * height / 2 if figure.stands else _AIR + (step_y / 2 if scene.count == 3 else 0)
    y = lowest + rng.uniform(-0.015, 0.015)
    out = []
    for across, down in spots:
        dx, dy, grow_x, grow_y = rng.uniform(-1, 1, 4)
        out.append(
            _Copy(
                figure,
                x + across * step_x + 0.004 * dx,
                y + down * step_y + 0.008 * dy,
                scale * (1 + 0.02 * grow_x),
                scale * (1 + 0.02 * grow_y),
            )
        )
    return out

"""The drawn pictures: positions, colours, and the same bytes for the same arguments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from lorablend.demo.canvas import box, curve, disc, fill, paint, rounded, stroke, under
from lorablend.demo.drawing import Layer, boxes, draw, layers
from lorablend.demo.grammar import (
    CHARACTERS,
    COLOURS,
    COUNTS,
    N_SCENES,
    OBJECTS,
    PLACES,
    POSITIONS,
    SIZES,
    TIMES,
    Scene,
    scene_at,
)
from lorablend.demo.objects import BODY, FIGURES
from lorablend.demo.subjects import SUBJECTS

NAMES = {"sky", "sun", "moon", "stars", "cloud", "far", "ground", "water", "scenery"}
CONTENT = {"shadow", "outline", "object", "object-detail"}


def some_scenes(count: int) -> list[tuple[int, Scene]]:
    return list(enumerate(scene_at(int(i)) for i in np.random.default_rng(1).choice(N_SCENES, count, replace=False)))


def scene(thing: str, *, size: str = "small", position: str = "middle", count: int = 1) -> Scene:
    return Scene(thing, "red", size, position, count, "meadow", "day")


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, np.float32) / 255


@pytest.mark.parametrize("size", [128, 256])
def test_same_arguments_same_bytes(size: int) -> None:
    for seed, one in some_scenes(10):
        first, second = draw(one, seed, size), draw(one, seed, size)
        assert (first.size, first.mode) == ((size, size), "RGB")
        assert first.tobytes() == second.tobytes()
        assert first.tobytes() != draw(one, seed + 1, size).tobytes()


def test_half_the_size_is_the_same_picture() -> None:
    for seed, one in some_scenes(10):
        half = pixels(draw(one, seed, 256).resize((128, 128), Image.Resampling.BOX))
        # Both are averages over pixels: they differ at edges only, by the supersampling's steps and where layers meet.
        assert np.abs(half - pixels(draw(one, seed, 128))).mean() < 0.004


def test_layers() -> None:
    for seed, one in some_scenes(30):
        drawn = layers(one, seed, 64)
        assert {layer.name for layer in drawn} <= NAMES | CONTENT
        assert drawn[0].name == "sky"
        assert drawn[0].mask.min() == 1
        first = [layer.name in CONTENT for layer in drawn].index(True)
        assert {layer.name for layer in drawn[first:]} <= CONTENT  # the object is in front of everything
        for layer in drawn:
            assert (layer.mask.shape, layer.mask.dtype) == ((64, 64), np.float32)
            assert 0 <= layer.mask.min() <= layer.mask.max() <= 1
            assert 0 <= np.min(layer.colour) <= np.max(layer.colour) <= 1


def test_paint() -> None:
    rng = np.random.default_rng(0)
    stack = [Layer("sky", np.ones((8, 8), np.float32), rng.random((8, 8, 3), np.float32))]
    for _ in range(4):
        mask = np.zeros((8, 8), np.float32)
        mask[2:5, 3:8] = rng.random((3, 5), np.float32)
        stack.append(Layer("cloud", mask, tuple(rng.random(3).tolist())))
    stack.append(Layer("cloud", np.zeros((8, 8), np.float32), (1.0, 0.0, 0.0)))
    expected = np.zeros((8, 8, 3))
    for layer in stack:
        cover = layer.mask[..., None].astype(float)
        expected = cover * layer.colour + (1 - cover) * expected
    assert np.abs(paint(stack) - expected).max() < 1e-6  # f32 against f64


@pytest.mark.parametrize("thing", [*OBJECTS, *CHARACTERS])
def test_boxes_are_where_the_object_is(thing: str) -> None:
    subject = thing if thing in CHARACTERS else None
    for size, position, count in itertools.product(SIZES, POSITIONS, COUNTS):
        one = scene("house" if subject else thing, size=size, position=position, count=count)
        parts = [layer.mask for layer in layers(one, 5, 256, subject) if layer.name.startswith("object")]
        rows, columns = np.nonzero(np.max(parts, axis=0) > 0.5)
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 256
        found = np.array(boxes(one, 5, subject=subject))
        expected = [*found[:, :2].min(0), *found[:, 2:].max(0)]
        assert len(found) == count
        assert np.abs(seen - expected).max() < 3.5 / 256  # a corner's tip is thinner than half a pixel


@pytest.mark.parametrize("thing", [*OBJECTS, *CHARACTERS])
def test_size_position_and_count_are_unmistakable(thing: str) -> None:
    subject = thing if thing in CHARACTERS else None
    longest: dict[tuple[str, int], list[float]] = {}
    for size, position, count, seed in itertools.product(SIZES, POSITIONS, COUNTS, range(20)):
        one = scene("house" if subject else thing, size=size, position=position, count=count)
        found = np.array(boxes(one, seed, subject=subject))
        assert found.min() > 0.01
        assert found.max() < 0.99
        centre = (found[:, 0].min() + found[:, 2].max()) / 2
        third = {"left": (0, 0.34), "middle": (0.47, 0.53), "right": (0.66, 1)}[position]
        assert third[0] < centre < third[1]
        for a, b in itertools.combinations(found, 2):
            apart = max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3])
            assert apart > 0
        longest.setdefault((size, count), []).append(float((found[:, 2:] - found[:, :2]).max()))
    assert 0.21 < min(longest["small", 1]) <= max(longest["small", 1]) < 0.25
    assert 0.40 < min(longest["large", 1]) <= max(longest["large", 1]) < 0.44
    for count in COUNTS:
        assert min(longest["large", count]) > 1.35 * max(longest["small", count])


@pytest.mark.parametrize("thing", OBJECTS)
def test_most_of_the_object_has_the_colour(thing: str) -> None:
    one = scene(thing, size="large")
    parts = [layer for layer in layers(one, 0) if layer.name.startswith("object")]
    whole = np.max([layer.mask for layer in parts], axis=0) > 0.5
    near = np.abs(pixels(draw(one, 0)) - BODY["red"]).max(-1) < 0.02
    assert near[whole].mean() > 0.4
    assert near[~whole].mean() < 0.001


def test_no_colour_vanishes() -> None:
    """The body's colour is far from the backdrop's behind and around it, at every place and time."""
    for place, time in itertools.product(PLACES, TIMES):
        for seed in range(3):
            drawn = layers(Scene("tree", "red", "large", "middle", 1, place, time), seed, 64)
            behind = paint([layer for layer in drawn if layer.name in NAMES])
            around = next(layer for layer in drawn if layer.name == "outline").mask > 0
            for colour in COLOURS:
                distance = np.linalg.norm(behind[around] - BODY[colour], axis=-1)
                # White in snow by day is the nearest; there the outline and the shade of the details make it visible.
                assert np.median(distance) > (0.1 if colour == "white" else 0.25), (colour, place, time)


def test_colours_are_apart() -> None:
    for one, other in itertools.combinations(COLOURS, 2):
        assert np.linalg.norm(np.subtract(BODY[one], BODY[other])) > 0.3, (one, other)


def test_objects_have_different_outlines() -> None:
    masks = []
    for thing in OBJECTS:
        one = scene(thing, size="large")
        left, top, right, bottom = boxes(one, 0)[0]
        outline = next(layer for layer in layers(one, 0) if layer.name == "outline").mask
        crop = Image.fromarray(np.uint8(outline * 255)).crop(
            tuple(round(256 * edge) for edge in (left, top, right, bottom))
        )
        masks.append(np.asarray(crop.resize((64, 64))) > 127)
    for (i, one), (j, other) in itertools.combinations(enumerate(masks), 2):
        overlap = (one & other).sum() / (one | other).sum()
        assert overlap < 0.9, (OBJECTS[i], OBJECTS[j])


def test_characters() -> None:
    assert tuple(SUBJECTS) == CHARACTERS
    assert not set(SUBJECTS) & set(FIGURES)
    one = scene("house", size="large")
    drawn = {draw(one, 0, 128, subject=subject).tobytes() for subject in (None, *SUBJECTS)}
    assert len(drawn) == 1 + len(SUBJECTS)


def test_fill_covers_the_area() -> None:
    # Pillow fills the samples on the edge too, so that it is half a sample, an eighth of a pixel, further out.
    assert fill([disc(0.5, 0.5, 0.3)], 128).mean() == pytest.approx(np.pi * 0.09, rel=0.02)
    assert fill([disc(0.5, 0.5, 0.3)], 128, grow=0.05).mean() == pytest.approx(np.pi * 0.35**2, rel=0.02)
    assert fill([box(0.25, 0.25, 0.75, 0.5)], 128).mean() == pytest.approx(0.125, rel=0.02)
    assert fill([box(-1, -1, 0.5, 2)], 128).mean() == pytest.approx(0.5, rel=0.01)
    assert fill([disc(2, 2, 0.1)], 16).max() == 0
    # Overlaps count once.
    assert fill([box(0.2, 0.2, 0.6, 0.6), box(0.4, 0.2, 0.8, 0.6)], 128).mean() == pytest.approx(0.24, rel=0.02)
    line = stroke([(0.2, 0.5), (0.5, 0.5), (0.8, 0.5)], 0.1)
    assert fill(line, 128).mean() == pytest.approx(0.06 + np.pi * 0.05**2, rel=0.04)


@pytest.mark.parametrize("turn", [1, -1])
def test_grown_corners(turn: int) -> None:
    """Whichever way round the points go, also in a corner that points inwards: an L of area 0.27 grown by 0.05."""
    corners = [(0.2, 0.2), (0.5, 0.2), (0.5, 0.5), (0.8, 0.5), (0.8, 0.8), (0.2, 0.8)]
    grown = fill([np.array(corners)[::turn]], 200, grow=0.05)
    assert grown.mean() == pytest.approx(0.7 * 0.7 - 0.3 * 0.3, rel=0.01)
    assert grown[round(0.44 * 200), round(0.56 * 200)] == 0
    assert grown[round(0.48 * 200), round(0.56 * 200)] == 1


def test_curves() -> None:
    square = [(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)]
    assert np.abs(curve(square)[::10] - square).max() < 1e-12  # through its points
    # Each corner cut by a parabola loses a third of the square of the radius times a half.
    assert fill([rounded(square, 0.12)], 256).mean() == pytest.approx(0.36 - 4 * 0.12**2 / 6, rel=0.01)


def test_under() -> None:
    mask = under(np.array([0.0, 0.25, 0.625, 1.0]))
    assert mask.mean(0).tolist() == [1, 0.75, 0.375, 0]

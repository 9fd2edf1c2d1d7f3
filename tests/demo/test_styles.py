"""The styles: what is true of each, and that the object and its colour remain recognizable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lorablend.demo.canvas import Layer, paint
from lorablend.demo.drawing import layers
from lorablend.demo.grammar import COLOURS, Scene
from lorablend.demo.styles import COLOURLESS_STYLES, STYLES, UNSEEN_STYLES
from lorablend.demo.styles.marks import bare, cells, lines, object_mask, regions, shift

SCENE = Scene("mushroom", "red", "large", "left", 1, "meadow", "day")
EVERY = pytest.mark.parametrize("name", STYLES)
# Styles in which nothing is random.
STILL = ("neon", "pixel")


def test_names() -> None:
    assert len(STYLES) == 12
    assert len(UNSEEN_STYLES) == 2
    assert {*UNSEEN_STYLES, *COLOURLESS_STYLES} <= set(STYLES)
    assert not {*UNSEEN_STYLES} & {*COLOURLESS_STYLES}


@EVERY
@pytest.mark.parametrize("size", [128, 256])
def test_picture(name: str, size: int) -> None:
    drawn = layers(SCENE, 1, size)
    before = [(layer.mask.copy(), np.array(layer.colour)) for layer in drawn]
    picture = STYLES[name](drawn, 1)
    assert (picture.shape, picture.dtype) == ((size, size, 3), np.float32)
    assert picture.min() >= 0
    assert picture.max() <= 1
    for layer, (mask, colour) in zip(drawn, before, strict=True):
        np.testing.assert_array_equal(layer.mask, mask)
        np.testing.assert_array_equal(layer.colour, colour)


@EVERY
def test_seed(name: str) -> None:
    drawn = layers(SCENE, 1, 128)
    first, again, other = (STYLES[name](drawn, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.array_equal(first, other) == (name in STILL)


@EVERY
def test_backdrop_alone(name: str) -> None:
    backdrop = [layer for layer in layers(SCENE, 1, 128) if not layer.name.startswith(("object", "outline", "shadow"))]
    assert np.isfinite(STYLES[name](backdrop, 1)).all()


@EVERY
@pytest.mark.parametrize("time", ["day", "sunset", "night"])
def test_object_stands_out(name: str, time: str) -> None:
    """Without the object the picture differs where it was, and is the same away from it."""
    drawn = layers(replace(SCENE, time=time), 1, 128)
    backdrop = [layer for layer in drawn if not layer.name.startswith(("object", "outline", "shadow"))]
    change = np.abs(STYLES[name](drawn, 1) - STYLES[name](backdrop, 1)).mean(-1)
    assert change[object_mask(drawn) > 0.5].mean() > 0.12
    assert change[:, 96:].mean() < 0.005


@pytest.mark.parametrize("name", [name for name in STYLES if name not in COLOURLESS_STYLES])
def test_colour_stays(name: str) -> None:
    """The body's mean colour is nearer to that of another drawing in this colour than to that of any other colour."""

    def body(colour: str, seed: int) -> np.ndarray:
        drawn = layers(replace(SCENE, colour=colour), seed, 256)
        (mask,) = (layer.mask for layer in bare(drawn) if layer.name == "object")
        return np.average(STYLES[name](drawn, seed), axis=(0, 1), weights=mask[..., None].repeat(3, 2))

    known = np.stack([body(colour, 1) for colour in COLOURS])
    for number, colour in enumerate(COLOURS):
        distance = np.linalg.norm(known - body(colour, 2), axis=1)
        assert distance.argmin() == number, f"{colour} looks like {COLOURS[distance.argmin()]}"


@pytest.mark.parametrize("name", COLOURLESS_STYLES)
def test_colourless(name: str) -> None:
    """One ink on one paper: the channels of all pixels are on a line."""
    pixels = STYLES[name](layers(SCENE, 1, 128), 1).reshape(-1, 3)
    spread = np.linalg.svd(pixels - pixels.mean(0), compute_uv=False)
    assert spread[1] < 0.12 * spread[0]


def test_far_apart() -> None:
    """No two styles draw the same scene alike, on average over the pixels."""
    drawn = layers(SCENE, 1, 128)
    pictures = {"plain": paint(drawn)} | {name: style(drawn, 1) for name, style in STYLES.items()}
    names = list(pictures)
    near = {(a, b): float(np.abs(pictures[a] - pictures[b]).mean()) for i, a in enumerate(names) for b in names[:i]}
    assert min(near.values()) > 0.03, min(near, key=near.__getitem__)


def test_regions() -> None:
    whole, left, faint = np.ones((4, 4), np.float32), np.zeros((4, 4), np.float32), np.full((4, 4), 0.5, np.float32)
    left[:, :2] = 1
    scene = [Layer("sky", whole, (0, 0, 1)), Layer("object", left, (1, 0, 0)), Layer("sun", faint, (1, 1, 0))]
    assert regions(scene).tolist() == [[1, 1, 0, 0]] * 4
    assert regions(scene, ("object",)).tolist() == [[0, 0, 0, 0]] * 4


def test_cells_do_not_mix_the_object_with_its_backdrop() -> None:
    whole, part = np.ones((8, 8), np.float32), np.zeros((8, 8), np.float32)
    part[:, :7] = 1
    colour, body = cells([Layer("sky", whole, (0.0, 0.0, 1.0)), Layer("object", part, (1.0, 0.0, 0.0))], 2)
    assert body.tolist() == [[True, True]] * 2
    np.testing.assert_allclose(colour, np.broadcast_to([1, 0, 0], (2, 2, 3)), atol=1e-6)


def test_lines_are_where_regions_meet() -> None:
    halves = np.repeat([[0] * 16 + [1] * 16], 32, axis=0)
    drawn = lines(halves, 3)
    assert drawn[:, 15].min() > 0.9
    assert drawn[:, :11].max() == drawn[:, 20:].max() == 0


def test_shift_repeats_edges() -> None:
    image = np.arange(9).reshape(3, 3)
    assert shift(image, 1, -1).tolist() == [[1, 2, 2], [1, 2, 2], [4, 5, 5]]

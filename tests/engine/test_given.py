"""What `Pipeline.generate` takes for each argument, and what it says about anything else."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import LorablendError
from lorablend.engine import Pipeline
from lorablend.engine.given import on_white, picture_of
from lorablend.engine.mask import greys
from lorablend.shipped import adapters_dir

RED = Image.new("RGB", (4, 2), (255, 0, 0))


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline("demo")


@pytest.mark.parametrize(
    "array",
    [
        np.full((2, 4, 3), 51, np.uint8),
        np.full((2, 4), 51, np.uint8),
        np.full((2, 4, 1), 51, np.int64),
        np.full((2, 4, 3), 0.2, np.float32),
        np.full((2, 4), 0.2),
    ],
)
def test_arrays_are_pictures(array: np.ndarray) -> None:
    picture = picture_of("image", array)
    assert picture is not None
    assert picture.size == (4, 2)
    assert (np.asarray(picture.convert("RGB")) == 51).all()


def test_paths_are_pictures(tmp_path: Path) -> None:
    RED.save(tmp_path / "red.png")
    for path in (tmp_path / "red.png", str(tmp_path / "red.png")):
        picture = picture_of("image", path)
        assert picture is not None
        assert picture.tobytes() == RED.tobytes()
    assert picture_of("image", RED) is RED
    assert picture_of("image", None) is None


def clear_pictures() -> dict[str, Image.Image]:
    """Black and transparent on the left, black on the right."""
    rgba = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    rgba.putpixel((1, 0), (0, 0, 0, 255))
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 0, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.info["transparency"] = 0
    keyed = Image.new("RGB", (2, 1), (1, 1, 1))
    keyed.putpixel((1, 0), (0, 0, 0))
    keyed.info["transparency"] = (1, 1, 1)
    grey = Image.new("L", (2, 1), 1)
    grey.putpixel((1, 0), 0)
    grey.info["transparency"] = 1
    return {"RGBA": rgba, "LA": rgba.convert("LA"), "P": palette, "tRNS of RGB": keyed, "tRNS of L": grey}


@pytest.mark.parametrize("kind", clear_pictures())
def test_what_is_transparent(kind: str) -> None:
    """White in a picture to start from, and left alone by a mask."""
    picture = clear_pictures()[kind]
    assert np.asarray(on_white(picture)).tolist() == [[[255] * 3, [0] * 3]]
    white = Image.new("RGB", (2, 1), "white")
    white.putalpha(picture.convert("RGBA").getchannel("A"))
    assert greys(white).tolist() == [[0.0, 1.0]]


def test_half_transparent_and_16_bits() -> None:
    assert on_white(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)
    assert on_white(Image.fromarray(np.full((1, 1), 65535, np.uint16))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("colour", "share"), [("white", 1), ("black", 0), ("red", 76 / 255), ("lime", 150 / 255), ("blue", 29 / 255)]
)
def test_masks_count_by_their_brightness(colour: str, share: float) -> None:
    assert greys(Image.new("RGB", (1, 1), colour))[0, 0] == pytest.approx(share)


@pytest.mark.parametrize(
    ("blend", "items"),
    [
        (None, []),
        ("", []),
        ("riso", [("riso", 1.0)]),
        (("riso", 0.5), [("riso", 0.5)]),
        ("<lora:riso:0.5><lora:neon:0.25>", [("riso", 0.5), ("neon", 0.25)]),
        ([("riso", 0.5)], [("riso", 0.5)]),
        ((("riso", 0.5), ["neon", 1]), [("riso", 0.5), ("neon", 1.0)]),
        (["<lora:riso:0.5>"], [("riso", 0.5)]),
        ({"adapter": "riso", "weight": 0.5}, [("riso", 0.5)]),
        ({"items": [{"adapter": "riso"}]}, [("riso", 1.0)]),
    ],
)
def test_forms_of_a_blend(pipe: Pipeline, blend: Any, items: list[tuple[str, float]]) -> None:
    request = pipe.check("a fox", blend=blend)
    assert [(item["adapter"], item["weight"]) for item in request.blend["items"]] == items


def test_a_file_or_an_adapter_is_a_blend(pipe: Pipeline) -> None:
    file = adapters_dir() / "riso.safetensors"
    for blend in (file, str(file), load_adapter(file), [file], [load_adapter(file)]):
        assert [item["weight"] for item in pipe.check("a fox", blend=blend).blend["items"]] == [1.0]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "prompt None": ({"prompt": None}, "prompt is None; give text"),
    "prompt list": ({"prompt": ["a fox"]}, "prompt is ['a fox']; give text"),
    "negative prompt": ({"negative_prompt": 3}, "negative_prompt is 3; give text"),
    "blend number": ({"blend": 3}, "blend is of type int; give pairs of an adapter and its weight"),
    "blend words": ({"blend": "<lora:riso> and more"}, 'blend is "<lora:riso> and more", which is more than tags; '),
    "blend name": ({"blend": "inc"}, "inc: no adapter with that name among the "),
    "blend letters": ({"blend": ["riso"]}, "riso is not an entry of a blend; give a pair, (file or name, weight)"),
    "width": ({"width": "wide"}, "width is 'wide'; give a whole number"),
    "height": ({"height": 64.5}, "height is 64.5; give a whole number"),
    "steps": ({"steps": "few"}, "steps is 'few'; give a whole number"),
    "guidance": ({"guidance_scale": None}, "guidance_scale is None; give a number of 0 or more"),
    "seed": ({"seed": "7"}, "seed is '7'; give a whole number"),
    "scheduler": ({"scheduler": 3}, "scheduler is 3; give text"),
    "prompt_rule": ({"prompt_rule": 3}, "prompt_rule is 3; give text"),
    "spacing": ({"spacing": 3}, "spacing is 3; give text"),
    "timesteps number": ({"timesteps": "many"}, "timesteps has many; give numbers"),
    "batch": ({"batch": "two"}, "batch is 'two'; give a whole number"),
    "image number": ({"image": 3}, "image is of type int; give a PIL image, a path or an array"),
    "image list": ({"image": [RED]}, "image is of type list; give a PIL image, a path or an array"),
    "image bytes": ({"image": b"x"}, "image is of type bytes; give a PIL image, a path or an array"),
    "image file": ({"image": "none.png"}, "image none.png cannot be read: no such file or directory"),
    "image text": ({"image": __file__}, f"image {__file__} cannot be read: not a picture"),
    "image shape": (
        {"image": np.zeros((1, 3, 8, 8))},
        "image has the shape [1, 3, 8, 8]; give [height, width] or [height, width, 1, 3 or 4]",
    ),
    "image range": ({"image": np.full((8, 8), 7.0)}, "image has values from 7 to 7; give fractions from 0 to 1"),
    "image minus": ({"image": np.full((8, 8), -1)}, "image has values from -1 to -1; give whole numbers from 0 to 255"),
    "image words": ({"image": np.full((8, 8), "x")}, "image is an array of <U1; give numbers"),
    "strength": ({"image": RED, "strength": "much"}, "strength is 'much'; give a number above 0, at most 1"),
    "mask": ({"image": RED, "mask": 3}, "mask is of type int; give a PIL image, a path or an array"),
    "latents": ({"latents": "noise"}, "latents is of type str; give an array of numbers"),
    "latents shape": ({"latents": [[1.0]]}, "latents have the shape [1, 1]; these settings need "),
    "callback": ({"callback": 3}, "callback is of type int; give a function"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_by_its_name(pipe: Pipeline, case: str) -> None:
    given, message = WRONG[case]
    with pytest.raises(LorablendError) as caught:
        pipe.generate(**{"prompt": "a fox", "steps": 1, **given})
    assert str(caught.value).startswith(message)
    assert str(caught.value).isprintable()


def test_every_argument_has_a_wrong_case() -> None:
    named = {name for given, _ in WRONG.values() for name in given}
    assert inspect.signature(Pipeline.generate).parameters.keys() - {"self"} == named


def test_escaped_brackets_are_brackets(pipe: Pipeline) -> None:
    """In both rules; those that are not escaped are weights."""
    escaped, weighted = (r"a red boat \(large\)", r"\(grass\)"), ("a red boat (large)", "(grass)")
    drawn = [
        pipe.generate(*texts, prompt_rule=rule, steps=1, seed=1, width=64, height=64)
        for texts, rule in ((escaped, "a1111"), (escaped, "comfy"), (weighted, "a1111"))
    ]
    pictures = [result.images[0].tobytes() for result in drawn]
    assert pictures[0] == pictures[1] != pictures[2]
    assert drawn[0].request.prompt == r"a red boat \(large\)"  # as it was written, for programs that read it again
    assert [result.warnings for result in drawn] == [(), (), ()]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"model_dir": None}, "model_dir is of type NoneType; give a folder"),
        ({"model_dir": b"demo"}, "model_dir is of type bytes; give a folder"),
        ({"lora_dir": 3}, "lora_dir is of type int; give a folder"),
        ({"cache_dir": 3}, "cache_dir is of type int; give a folder"),
        ({"device": None}, "device is of type NoneType; give OpenVINO's name of it, such as CPU"),
        ({"max_rank": "8"}, "max_rank is '8'; give a whole number"),
        ({"max_rank": True}, "max_rank is True; give a whole number"),
    ],
)
def test_wrong_types_at_the_pipeline_itself(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(LorablendError) as caught:
        Pipeline(**{"model_dir": "demo", **arguments})
    assert str(caught.value) == text

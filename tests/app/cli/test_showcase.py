"""The demo's pictures and sheet."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters.errors import ModelError
from lorablend.app.cli.showcase import draw_showcase
from lorablend.app.library.folder import adapter_files
from lorablend.app.pictures.png import open_picture, read_png
from lorablend.app.pictures.showcase import Showcase, ShowcaseEntry, read_showcase
from lorablend.engine import Pipeline
from lorablend.shipped import adapters_dir
from tests.app.pictures.on_sheet import places

SHOWCASE = Showcase(
    about="a model of random weights",
    prompt="a fox",
    seed=7,
    steps=2,
    guidance=3.0,
    adapters=(
        ShowcaseEntry(adapters=("ink",), label="ink"),
        ShowcaseEntry(adapters=("neon glow",), label="a cat", prompt="a cat, glowing"),
    ),
    blends=(ShowcaseEntry(adapters=("ink", "neon glow"), label="both"),),
    shares=(0, 0.3, 1),
)


def test_showcase(sdxl_model: Path, lora_dir: Path, tmp_path: Path) -> None:
    said: list[str] = []
    sheet = draw_showcase(Pipeline(sdxl_model), SHOWCASE, adapter_files(lora_dir), tmp_path, said.append)
    # The blend begins with ink alone, which was drawn already; neon glow alone has another prompt.
    stems = ["no-adapter", "ink", "a-cat", "both-0.7-0.3", "both-0-1"]
    assert {path.name for path in tmp_path.iterdir()} == {f"{stem}.png" for stem in stems} | {"sheet.png"}
    pictures = {stem: np.asarray(open_picture(tmp_path / f"{stem}.png")) for stem in stems}
    assert len({picture.tobytes() for picture in pictures.values()}) == len(stems)
    asked = {}
    for stem in stems:
        record = read_png(tmp_path / f"{stem}.png").record
        assert record
        assert (record.request.seed, record.request.steps, record.request.guidance_scale) == (7, 2, 3.0)
        weights = [(item["adapter"], item["weight"]) for item in record.request.blend["items"]]
        asked[stem] = (record.request.prompt, weights)
    assert asked == {
        "no-adapter": ("a fox", []),
        "ink": ("a fox", [("ink", 1)]),
        "a-cat": ("a cat, glowing", [("neon glow", 1)]),
        "both-0.7-0.3": ("a fox", [("ink", 0.7), ("neon glow", 0.3)]),
        "both-0-1": ("a fox", [("neon glow", 1)]),
    }
    assert said[0] == "a model of random weights"
    for stem, line in zip(stems, said[1:-2], strict=True):
        assert re.fullmatch(
            rf"{stem}\.png +\d+\.\d\d s, including +\d+\.\d\d s to compile and +\d+ ms to change the blend", line
        )
    assert re.fullmatch(
        r"5 pictures in \d+ s on \d+ cores: \d+\.\d s to compile, then \d+\.\d\d s per picture, "
        r"including \d+ ms to change the blend",
        said[-2],
    )
    assert said[-1] == f"side by side: {sheet}"


def test_the_sheet_has_every_picture(sdxl_model: Path, lora_dir: Path, tmp_path: Path) -> None:
    """Single adapters are in one row, blends in another."""
    path = draw_showcase(Pipeline(sdxl_model), SHOWCASE, adapter_files(lora_dir), tmp_path, lambda _: None)
    sheet = open_picture(path)
    stems = ("no-adapter", "ink", "a-cat", "both-0.7-0.3", "both-0-1")
    (base,), (first, again), (cat,), (mixed,), (last,) = (
        places(sheet, open_picture(tmp_path / f"{stem}.png")) for stem in stems
    )
    assert base[0] == first[0] == cat[0] < again[0] == mixed[0] == last[0]
    assert base[1] < first[1] < cat[1]
    assert again[1] < mixed[1] < last[1]


def test_without_blends(sdxl_model: Path, lora_dir: Path, tmp_path: Path) -> None:
    showcase = replace(SHOWCASE, blends=(), shares=())
    draw_showcase(Pipeline(sdxl_model), showcase, adapter_files(lora_dir), tmp_path, lambda _: None)
    assert len(list(tmp_path.iterdir())) == 4


def test_an_adapter_that_is_not_there(sdxl_model: Path, lora_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        draw_showcase(Pipeline(sdxl_model), SHOWCASE, adapter_files(lora_dir)[:1], tmp_path, lambda _: None)
    assert str(caught.value) == 'the demo has no adapter "neon glow"; reinstall lorablend'
    assert not list(tmp_path.iterdir())


def test_what_is_shipped_is_shown() -> None:
    """Every adapter of the demo is on the sheet under its file's name, and there are three blends of two."""
    showcase = read_showcase(adapters_dir() / "showcase.json")
    shown = [name for variant in showcase.adapters for name in variant.adapters]
    assert sorted(shown) == [path.stem for path in adapter_files(adapters_dir())]
    assert [len(variant.adapters) for variant in showcase.blends] == [2, 2, 2]
    assert {name for variant in showcase.blends for name in variant.adapters} <= set(shown)


def test_labels_are_made_of_names(tmp_path: Path) -> None:
    path = tmp_path / "showcase.json"
    path.write_text(json.dumps(FORM))
    showcase = read_showcase(path)
    assert showcase.adapters == (
        ShowcaseEntry(adapters=("a",), label="a"),
        ShowcaseEntry(adapters=("b",), label="B", prompt="p"),
    )
    assert showcase.blends == (ShowcaseEntry(adapters=("a", "b"), label="a and b"),)


FORM: dict[str, Any] = {
    "about": "about",
    "prompt": "a fox",
    "seed": 7,
    "steps": 8,
    "guidance": 5,
    "adapters": [{"adapter": "a"}, {"adapter": "b", "label": "B", "prompt": "p"}],
    "blends": [{"adapters": ["a", "b"]}],
    "shares": [0, 1],
}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        json.dumps({key: value for key, value in FORM.items() if key != "seed"}),
        json.dumps(FORM | {"steps ": 3}),
        json.dumps(FORM | {"adapters": [{"name": "a"}]}),
        json.dumps(FORM | {"blends": [{"adapters": ["a"]}]}),
    ],
)
def test_a_broken_installation(text: str, tmp_path: Path) -> None:
    path = tmp_path / "showcase.json"
    path.write_text(text)
    with pytest.raises(ModelError) as caught:
        read_showcase(path)
    assert re.fullmatch(r"the demo's showcase\.json cannot be used \(.+\); reinstall lorablend", str(caught.value))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"showcase\.json cannot be used \(.*No such file.*\); reinstall lorablend"):
        read_showcase(tmp_path / "showcase.json")

"""Small data sets, drawn, and the pictures that the demo model is trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorablend.demo.data_set import draw_data_set
from lorablend.demo.drawing import draw
from lorablend.demo.grammar import held_out
from lorablend.demo.pictures import TAUGHT_STYLES, draw_all, held_out_scenes, training_scenes
from lorablend.demo.styles import UNSEEN_STYLES
from lorablend.train.data.layouts import find_examples


def test_data_set_is_one_that_the_trainer_understands(tmp_path: Path) -> None:
    draw_data_set(tmp_path / "robots", 3, subject="robot", size=128)
    draw_data_set(tmp_path / "paper", 4, style="paper", size=128)
    examples = find_examples(tmp_path / "paper").examples
    assert [example.size for example in examples] == [(128, 128)] * 4
    assert len({example.captions for example in examples}) == 4
    assert all(example.captions[0].endswith(", in paper style") for example in examples)
    robots = find_examples(tmp_path / "robots").examples
    assert all("robot" in example.captions[0] for example in robots)


def test_style_and_subject_are_drawn(tmp_path: Path) -> None:
    for name, kind in (("plain", {}), ("paper", {"style": "paper"}), ("robot", {"subject": "robot"})):
        draw_data_set(tmp_path / name, 2, size=128, **kind)
    pictures = {
        name: np.asarray(Image.open(tmp_path / name / "000.png"), np.int16) for name in ("plain", "paper", "robot")
    }
    assert np.abs(pictures["plain"] - pictures["paper"]).mean() > 5
    assert np.abs(pictures["plain"] - pictures["robot"]).max() > 100


def test_an_old_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        draw_data_set(tmp_path, 1, style="paper")
    assert not list(tmp_path.iterdir())


def test_held_out_scenes_are_held_out() -> None:
    assert not any(map(held_out, training_scenes(3000, seed=1)))
    scenes = held_out_scenes(200, seed=1)
    assert all(map(held_out, scenes))
    assert len(set(scenes)) == 200
    assert held_out_scenes(200, seed=2) != scenes


def test_pictures_are_drawn_once(tmp_path: Path) -> None:
    scenes = training_scenes(5, seed=3)
    file = tmp_path / "new" / "pictures.npy"
    drawn = draw_all(file, scenes, [None, "pixel"], 128)
    assert drawn.shape == (5, 128, 128, 3)
    for i in range(5):
        assert np.array_equal(drawn[i], np.asarray(draw(scenes[i], i, 128, [None, "pixel"][i % 2])))
    before = file.stat().st_mtime_ns
    draw_all(file, scenes, [None, "pixel"], 128)
    assert file.stat().st_mtime_ns == before
    assert [path.name for path in file.parent.iterdir()] == ["pictures.npy"]


def test_unseen_styles_stay_unseen() -> None:
    assert len(TAUGHT_STYLES) >= 8
    assert not set(TAUGHT_STYLES) & set(UNSEEN_STYLES)

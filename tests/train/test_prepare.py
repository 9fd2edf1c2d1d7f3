"""Preparing a data set, and near-duplicates."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from lorablend.adapters.errors import DataError, InputError
from lorablend.train.data.duplicates import near_duplicates
from lorablend.train.data.examples import Example
from lorablend.train.data.layouts import find_examples
from lorablend.train.prepare import prepare
from tests.train.data.data_files import by_name, pattern, save


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    save(folder / "a.png", 1, (300, 200), caption="a fox\nit\n")
    save(folder / "sub" / "a.png", 2, (200, 300), caption="sks hare")
    save(folder / "sub" / "A.jpg", 3, (260, 260))
    pattern(1, (300, 200)).resize((150, 100)).save(folder / "small.jpg", quality=60)
    mask = np.zeros((200, 300), np.uint8)
    mask[:, 150:] = 255
    Image.fromarray(mask).save(folder / "a-masklabel.png")
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def examples(paths: list[Path]) -> list[Example]:
    return [Example(path, (), 1, Image.open(path).size, None) for path in paths]


def test_prepare(data: Path, tmp_path: Path) -> None:
    before = {name: (data / name).read_bytes() for name in files(data)}
    seen: list[tuple[int, int]] = []
    result = prepare(data, tmp_path / "ready", resolution=128, trigger="sks", progress=lambda *args: seen.append(args))
    assert files(tmp_path / "ready") == [
        "1_sks/A-2.png",
        "1_sks/A-2.txt",
        "1_sks/a-3.png",
        "1_sks/a-3.txt",
        "1_sks/a-masklabel.png",
        "1_sks/a.png",
        "1_sks/a.txt",
    ]
    ready = tmp_path / "ready" / "1_sks"
    assert (ready / "a.txt").read_text() == "sks, a fox\nsks, it\n"
    assert (ready / "a-3.txt").read_text() == "sks hare\n"
    assert Image.open(ready / "a.png").size == (160, 96)
    mask = np.asarray(Image.open(ready / "a-masklabel.png"))
    assert mask.shape == (96, 160)
    assert (mask[0, 0], mask[0, -1]) == (0, 255)
    assert result.lines[-5:] == (
        "left out: small.jpg looks like a.png",
        "96×160: 1 picture",
        "128×128: 1 picture",
        "160×96: 1 picture",
        f"3 of 4 pictures in {tmp_path / 'ready'}",
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert {name: (data / name).read_bytes() for name in files(data)} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    again = find_examples(tmp_path / "ready")
    assert again.problems == ()
    assert again.trigger == "sks"
    assert {example.size for example in again.examples} == {(160, 96), (96, 160), (128, 128)}


def test_contact_sheet(data: Path, tmp_path: Path) -> None:
    result = prepare(data, tmp_path / "ready", resolution=128)
    (sheet,) = result.sheets
    assert sheet == tmp_path / "ready-sheet.png"
    pixels = np.asarray(Image.open(sheet).convert("RGB"))
    assert pixels.shape[1] > 3 * 150
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 1000  # pictures, not only background and letters


def test_many_pictures_take_several_sheets(tmp_path: Path) -> None:
    for number in range(81):
        save(tmp_path / "data" / f"{number}.png", number, (64, 64))
    result = prepare(tmp_path / "data", tmp_path / "ready", resolution=64)
    assert [path.name for path in result.sheets] == ["ready-sheet.png", "ready-sheet-2.png"]


def test_repeats_triggers_and_regularization_are_kept(tmp_path: Path) -> None:
    save(tmp_path / "data" / "img" / "5_sks fox" / "a.png", 1)
    save(tmp_path / "data" / "img" / "1_sks hare" / "a.png", 2)
    save(tmp_path / "data" / "img" / "1_data" / "a.png", 3)
    save(tmp_path / "data" / "reg" / "2_fox" / "a.png", 4)
    prepare(tmp_path / "data", tmp_path / "ready", resolution=64)
    again = by_name(find_examples(tmp_path / "ready"))
    assert {name: (e.repeats, e.captions, e.trigger, e.regularization) for name, e in again.items()} == {
        "5_sks/a.png": (5, ("sks fox",), "sks", False),
        "1_sks/a.png": (1, ("sks hare",), "sks", False),
        "1_data/a.png": (1, (), None, False),
        "reg/2_data/a.png": (2, ("fox",), None, True),
    }


@pytest.mark.parametrize("trigger", ["paper style", "ohwx_cat", "x7", "a/b", "photo"])
def test_a_trigger_that_no_folder_name_carries_is_told(tmp_path: Path, trigger: str) -> None:
    """kohya's names end the trigger at a space or _, and words such as photo never count as captions."""
    save(tmp_path / "data" / "a.png", 1, caption="a fox")
    lines = prepare(tmp_path / "data", tmp_path / "ready", resolution=64, trigger=trigger).lines
    assert files(tmp_path / "ready") == ["a.png", "a.txt"]
    assert (tmp_path / "ready" / "a.txt").read_text() == f"{trigger}, a fox\n"
    assert f"a folder's name cannot express the trigger; train with --trigger {shlex.quote(trigger)}" in lines


def test_captions_from_names(tmp_path: Path) -> None:
    save(tmp_path / "data" / "foxes" / "red fox.png", 1)
    prepare(tmp_path / "data", tmp_path / "files", resolution=64, caption_from="files")
    prepare(tmp_path / "data", tmp_path / "folders", resolution=64, caption_from="folders")
    assert (tmp_path / "files" / "red fox.txt").read_text() == "red fox\n"
    assert (tmp_path / "folders" / "red fox.txt").read_text() == "foxes\n"


def test_damaged_pictures(data: Path, tmp_path: Path) -> None:
    (data / "bad.png").write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        prepare(data, tmp_path / "ready")
    assert str(caught.value) == "bad.png is not a picture, or damaged; save it again as PNG or JPEG"
    result = prepare(data, tmp_path / "ready", resolution=64, skip_bad=True)
    assert "left out: bad.png is not a picture, or damaged; save it again as PNG or JPEG" in result.lines


def test_all_damaged(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bad.png").write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        prepare(tmp_path / "data", tmp_path / "ready", skip_bad=True)
    assert str(caught.value) == f"{tmp_path / 'data'}: every picture is damaged; there is nothing to prepare"


@pytest.mark.parametrize("taken", ["ready/x", "ready-sheet.png"])
def test_nothing_is_written_over(data: Path, tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("mine")
    with pytest.raises(InputError) as caught:
        prepare(data, tmp_path / "ready")
    name = tmp_path / taken.removesuffix("/x")
    assert str(caught.value) == f"{name} is already there; choose another name or delete it"
    assert (tmp_path / taken).read_text() == "mine"


def test_an_empty_folder_is_taken(data: Path, tmp_path: Path) -> None:
    (tmp_path / "ready").mkdir()
    assert prepare(data, tmp_path / "ready", resolution=64).folder == tmp_path / "ready"


def test_near_duplicates(tmp_path: Path) -> None:
    """A picture is recognized after what cameras, editors and sites do to it; a different one is not a duplicate."""
    image = pattern(1, (320, 240))
    variants = {
        "a": image,
        "half": image.resize((160, 120)),
        "brighter": ImageEnhance.Brightness(image).enhance(1.06),
        "trimmed": image.crop((2, 2, 318, 238)),
        "mirrored": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "other": pattern(2, (320, 240)),
    }
    paths = [tmp_path / f"{name}.png" for name in variants]
    for path, variant in zip(paths, variants.values(), strict=True):
        variant.save(path)
    image.save(tmp_path / "strong.jpg", quality=35)
    paths.append(tmp_path / "strong.jpg")
    assert near_duplicates(examples(paths)) == [(1, 0), (2, 0), (3, 0), (6, 0)]
    assert near_duplicates([]) == []
    half, lossy, whole = examples([paths[1], paths[6], paths[0]])
    assert near_duplicates([half, lossy, whole]) == [(0, 2), (1, 2)]
    assert near_duplicates([half, replace(lossy, captions=("x",)), whole]) == [(0, 1), (2, 1)]


def test_flat_drawings_are_told_apart_by_small_things(tmp_path: Path) -> None:
    """The same shape in another colour, or a bit further to the right, is not a duplicate."""
    paths: list[Path] = []
    for index, (colour, left) in enumerate([((200, 30, 30), 100), ((30, 30, 200), 100), ((200, 30, 30), 130)]):
        scene = np.full((256, 256, 3), (120, 190, 240), np.uint8)
        scene[180:] = (90, 160, 70)
        scene[150:180, left : left + 30] = colour
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(scene).save(paths[-1])
    Image.open(paths[0]).save(tmp_path / "again.jpg", quality=60)
    paths.append(tmp_path / "again.jpg")
    assert near_duplicates(examples(paths)) == [(3, 0)]

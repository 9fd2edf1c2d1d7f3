"""The shipped model and adapters: small, clean, and their pictures show what the captions say."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorablend.adapters import load_adapter
from lorablend.convert.shipped import diffusers_folder
from lorablend.demo.data_set import caption_of
from lorablend.demo.judge import PLAIN, Judge
from lorablend.demo.make_adapters import draw_previews, write_trigger
from lorablend.demo.make_model import make_model
from lorablend.demo.pictures import held_out_scenes
from lorablend.demo.score import accuracy, draw_and_read, share_of
from lorablend.demo.styles import STYLES
from lorablend.demo.subjects import SUBJECTS
from lorablend.engine import ModelFolder, Pipeline
from lorablend.engine.graph.ir import Ir
from lorablend.shipped import adapters_dir, model_dir

ADAPTERS = sorted(adapters_dir().glob("*.safetensors"))
FEW = held_out_scenes(6, seed=21)
STEPS = 10  # enough for the judge; the tables in demo/README.md have the default


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline("demo")


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


def test_sizes() -> None:
    model = ModelFolder(model_dir())
    assert (model.family, model.default_size) == ("sdxl", (256, 256))
    assert sum(file.stat().st_size for file in model_dir().rglob("*")) < 30e6
    assert max(file.stat().st_size for file in ADAPTERS) < 1e6


def test_no_path_or_date() -> None:
    for file in model_dir().rglob("*"):
        if file.suffix in (".json", ".xml"):
            content = file.read_text(encoding="utf-8")
            assert not [word for word in ("/tmp", "/home", "/root", "_name_or_path", "20:") if word in content], file
    assert not (model_dir() / "lorablend.json").exists()
    for file in ADAPTERS:
        assert not [word for word in (b"/tmp", b"/home", b"/root", b"/work") if word in file.read_bytes()], file


def test_what_is_shipped() -> None:
    """At least eight styles and two subjects, in all the formats."""
    names = {file.stem for file in ADAPTERS}
    assert len(names & STYLES.keys()) >= 8
    assert len(names & SUBJECTS.keys()) >= 2
    adapters = [load_adapter(file) for file in ADAPTERS]
    algorithms = {delta.algorithm for adapter in adapters for delta in adapter.deltas.values()}
    assert algorithms >= {"lora", "loha", "lokr", "dora"}
    assert any(len(shape) == 4 for file in ADAPTERS for shape in _shapes(file))  # LoCon: convolutions too
    keys = {key.rpartition("lora_")[2] for file in ADAPTERS for key in _shapes_by_key(file)}
    assert {"down.weight", "A.weight"} <= keys
    assert {adapter.base_model for adapter in adapters} == {"sdxl"}
    assert {adapter.name: adapter.trigger_words for adapter in adapters} == {
        name: [name if name in SUBJECTS else f"in {name} style"] for name in names
    }


def test_script_draws_and_names_what_is_shipped(tmp_path: Path) -> None:
    """The trigger phrase is in the files as the script writes it; the pictures are those that it draws, and small."""
    for name in ("comic", "cat"):
        again = Path(shutil.copy(adapters_dir() / f"{name}.safetensors", tmp_path))
        write_trigger(name, again)
        assert again.read_bytes() == (adapters_dir() / again.name).read_bytes()
    draw_previews(tmp_path, ["comic"])
    ours, again = (np.asarray(Image.open(folder / "comic.jpg"), np.int16) for folder in (adapters_dir(), tmp_path))
    assert np.abs(ours - again).mean() < 3
    pictures = [file.with_suffix(".jpg") for file in ADAPTERS]
    assert {Image.open(picture).size for picture in pictures} == {(256, 256)}
    assert sum(picture.stat().st_size for picture in pictures) < 200e3


def _shapes_by_key(file: Path) -> dict[str, list[int]]:
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as tensors:
        return {key: tensors.get_slice(key).get_shape() for key in tensors.keys()}  # noqa: SIM118


def _shapes(file: Path) -> list[list[int]]:
    return list(_shapes_by_key(file).values())


def test_pictures_show_what_the_captions_say(pipeline: Pipeline, judge: Judge) -> None:
    """On captions that were held out of training; the tables of 200 are in demo/README.md."""
    verdicts = draw_and_read(pipeline, judge, [scene.caption(i) for i, scene in enumerate(FEW)], steps=STEPS)
    scores = accuracy(verdicts, FEW)
    assert min(scores[name] for name in ("object", "colour", "position")) > 0.8
    assert share_of(verdicts, "style", PLAIN) == 1


@pytest.mark.parametrize("name", [file.stem for file in ADAPTERS])
def test_adapters_show(pipeline: Pipeline, judge: Judge, name: str) -> None:
    """At weight 1 but not at weight 0; demo/README.md tells how often the judge is sure of it."""
    attribute = "object" if name in SUBJECTS else "style"
    captions = [
        scene.caption(i, name) if name in SUBJECTS else caption_of(scene.caption(i), name)
        for i, scene in enumerate(FEW)
    ]
    on, off = (
        float(np.mean([getattr(verdict, attribute)[name] for verdict in verdicts]))
        for verdicts in (
            draw_and_read(pipeline, judge, captions, [(name, 1.0)], steps=STEPS),
            draw_and_read(pipeline, judge, captions[:1], [(name, 0.0)], steps=STEPS),
        )
    )
    assert off < 0.02
    assert on > 0.4


def test_a_blend_scores_between_its_styles(pipeline: Pipeline, judge: Judge) -> None:
    """Eight pairs with 40 captions each are in demo/README.md."""
    captions = [scene.caption(i) for i, scene in enumerate(FEW)]
    riso, watercolour = zip(
        *(
            [float(np.mean([verdict.style[name] for verdict in verdicts])) for name in ("riso", "watercolour")]
            for verdicts in (
                draw_and_read(pipeline, judge, captions, [("riso", 1 - share), ("watercolour", share)], steps=STEPS)
                for share in (0.0, 0.5, 1.0)
            )
        ),
        strict=True,
    )
    assert riso[0] > riso[1] > riso[2]
    assert watercolour[0] < watercolour[1] < watercolour[2]


@pytest.mark.slow
def test_script_writes_what_is_shipped(tmp_path: Path) -> None:
    """From the diffusers weights that the trainer gets: nothing is lost in either direction."""
    make_model(diffusers_folder(), tmp_path / "model")
    for xml in model_dir().glob("*/openvino_model.xml"):
        ours, again = Ir(xml), Ir(tmp_path / "model" / xml.relative_to(model_dir()))
        assert ours.shapes == again.shapes
        assert all((ours.read(path) == again.read(path)).all() for path in ours.shapes), xml.parent.name

"""The parts of the page, without a browser."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.components.image_editor import EditorData
from gradio.data_classes import FileData
from gradio.utils import deep_hash
from PIL import Image
from pydantic import ValidationError

from lorablend.adapters.errors import BlendError, RequestError
from lorablend.app.jobs.jobs import GETTING_READY, Job, JobProgress
from lorablend.app.orders.draw import Draw
from lorablend.app.page.compare import compare
from lorablend.app.page.create import first_prompt
from lorablend.app.page.form import fitting_step, size_of
from lorablend.app.page.page import build_page
from lorablend.app.page.pedal import Pedal, blend_of, board_of, read_board, style_of, written_board
from lorablend.app.page.stage import job_stage
from lorablend.app.page.start import kept_background, make_start
from lorablend.app.page.styles import Styles
from lorablend.app.page.tokens import TokenCounter
from lorablend.app.service import Service
from lorablend.engine import ModelFolder
from lorablend.shipped import model_dir


@pytest.fixture
def page(service: Service) -> gr.Blocks:
    return build_page(service)


@pytest.mark.parametrize(
    "item",
    [
        {"adapter": "ink", "weight": 0.8},
        {"adapter": "ink", "weight": -0.123456, "unet": 0.5, "text_encoder": 0.0},
        {"adapter": "ink", "weight": 1.0, "blocks": "OUTALL"},
        {"adapter": "ink", "weight": 1.0, "blocks": [1.0, 0.0, 0.5] * 4},
        {"adapter": "ink", "weight": 1.0, "blocks": {"lbw": "OUTALL", "in": 0.5, "mid_block": 0.25}},
        {"adapter": "ink", "weight": 1.0, "schedule": {"start": 3, "stop": 0.5, "ramp": [0.0, 1.0]}},
        {"adapter": "ink", "weight": 1.0, "mask": [0.0, 0.0, 0.5, 1.0]},
        {"adapter": "ink", "weight": 1.0, "mask": "0123abcd"},
    ],
)
def test_a_pedal_says_what_its_item_said(item: dict[str, Any]) -> None:
    assert Pedal.of_item(item).item() == item


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"mask": "0, 0.5"}, "ink: mask has 2 numbers; give 4, separated by commas"),
        ({"ramp": "0, one"}, 'ink: ramp has "one"; give numbers'),
        ({"start": "soon"}, 'ink: start has "soon"; give numbers'),
        ({"blocks": "{no"}, "ink: blocks are not valid JSON"),
        ({"text_encoder": "half"}, 'ink: text encoder has "half"; give numbers'),
    ],
)
def test_text_that_makes_no_sense(texts: dict[str, str], message: str) -> None:
    with pytest.raises(BlendError) as caught:
        Pedal(adapter="ink", **texts).item()
    assert str(caught.value).startswith(message)


def test_a_board() -> None:
    board = [Pedal(adapter="ink"), Pedal(adapter="neon", on=False), Pedal(adapter="ink", weight=0.5)]
    blend = blend_of(board, "switch", 2)
    assert blend == {
        "mode": "switch",
        "switch_steps": 2,
        "items": [{"adapter": "ink", "weight": 1.0}, {"adapter": "ink", "weight": 0.5}],
    }
    assert blend_of(board_of(blend), "switch", 2) == blend
    kept = style_of(board, "sum", 1)
    assert kept["items"][1] == {"adapter": "neon", "weight": 1.0, "on": False}
    assert [pedal.on for pedal in board_of(kept)] == [True, False, True]
    assert style_of(board_of(kept), "sum", 1) == kept
    assert read_board(json.loads(json.dumps(written_board(kept)))) == board


def test_a_board_that_was_not_loaded_yet() -> None:
    """Drawn all the same, it would be a picture without its styles."""
    with pytest.raises(RequestError) as caught:
        read_board(None)
    assert str(caught.value) == "the page is still loading the pedal board; wait a moment, or reload the page"


@pytest.mark.parametrize(
    "value",
    [{}, "ink", [1], [{"weight": 1.0}], [{"adapter": "ink", "weight": "heavy"}], [{"adapter": "ink", "blocks": [1.0]}]],
)
def test_a_board_from_another_program(value: Any) -> None:
    with pytest.raises(ValidationError):
        read_board(value)


@pytest.mark.parametrize(
    ("value", "step", "finer"),
    [(0.8, 0.05, 0.05), (0.72, 0.05, 0.01), (-0.725, 0.05, 0.001), (0.123456, 0.05, 0.000001), (1001, 8, 1)],
)
def test_a_slider_says_a_value_and_is_moved_by_keys(value: float, step: float, finer: float) -> None:
    assert fitting_step(value, step) == finer


@pytest.mark.parametrize(
    ("picture", "size"),
    [((1216, 832), (1216, 832)), ((1021, 70), (1016, 64)), ((4096, 3072), (2048, 1536)), ((16, 32), (64, 128))],
)
def test_a_picture_is_not_stretched(picture: tuple[int, int], size: tuple[int, int]) -> None:
    assert size_of(picture, 2048) == size


def test_the_demo_has_a_prompt(tmp_path: Path, sdxl_model: Path) -> None:
    for folder, begins in ((model_dir(), "a "), (sdxl_model, "")):
        service = Service(tmp_path / folder.name, {"one": folder})
        prompt = first_prompt(service)
        assert prompt.startswith(begins)
        assert bool(prompt) == bool(begins)
        service.close()


def test_styles(tmp_path: Path) -> None:
    styles = Styles(tmp_path / "styles")
    assert styles.names() == []
    blend = {"mode": "sum", "items": [{"adapter": "ink", "weight": 0.8}]}
    longest = "я" * 39  # as a file name, it has 239 of the 255 bytes that a file system allows
    for name in ("Zürich / night", "../up", "a", longest):
        styles.save(name, blend)
    assert styles.names() == ["../up", "a", "Zürich / night", longest]
    assert styles.load("../up") == blend
    assert {path.parent for path in tmp_path.rglob("*.json")} == {tmp_path / "styles"}
    styles.delete("a")
    with pytest.raises(RequestError, match='there is no style "a"'):
        styles.load("a")
    with pytest.raises(RequestError, match='there is no style "a"'):
        styles.delete("a")
    for name in ("", "  ", "x" * 61):
        with pytest.raises(RequestError, match="a style cannot be called"):
            styles.save(name, blend)


def test_an_empty_canvas_is_no_picture(tmp_path: Path, sdxl_model: Path) -> None:
    """The box has this value after a file that the browser cannot read."""
    service = Service(tmp_path / "data", {"one": sdxl_model}, None)
    for background in (None, Image.new("RGB", (512, 512), "white"), Image.new("RGBA", (64, 64), (255, 255, 255, 0))):
        with pytest.raises(RequestError) as caught:
            kept_background(service, {"background": background, "layers": []})
        assert str(caught.value) == "there is no picture; drop one into the box, or take the newest"
    name = kept_background(service, {"background": Image.new("RGBA", (64, 96), "black"), "layers": []})
    assert service.uploads.open(name).size == (64, 96)
    service.close()


def test_the_editor_decodes_within_limits(tmp_path: Path, sdxl_model: Path) -> None:
    """Gradio decodes what the browser sends, before any code of ours sees it."""
    service = Service(tmp_path / "data", {"one": sdxl_model}, None)
    with gr.Blocks():
        editor = make_start(service, gr.State(), {name: gr.Slider() for name in ("width", "height")}).editor

    def sent(size: tuple[int, int]) -> EditorData:
        Image.new("1", size).save(tmp_path / "a.png")
        return EditorData(background=FileData(path=str(tmp_path / "a.png")), layers=[], composite=None)

    assert editor.preprocess(None) is None
    kept: Any = editor.preprocess(sent((8, 16)))
    assert kept["background"].size == (8, 16)
    for size in ((9000, 6000), (20_000, 10_000)):
        with pytest.raises(gr.Error, match="16,777,216"):
            editor.preprocess(sent(size))
    (tmp_path / "a.png").write_text("<html>")
    with pytest.raises(gr.Error, match="the picture cannot be read"):
        editor.preprocess(EditorData(background=FileData(path=str(tmp_path / "a.png")), layers=[], composite=None))
    service.close()


def test_a_comparison_is_queued_as_a_whole(tmp_path: Path, sdxl_model: Path, lora_dir: Path) -> None:
    service = Service(tmp_path / "data", {"one": sdxl_model}, lora_dir, limit=5)
    draw = Draw(prompt="a fox", blend=[{"adapter": "ink"}, {"adapter": "neon glow"}], steps=2)
    compare(service, draw, "me")
    with pytest.raises(RequestError) as caught:
        compare(service, draw, "me")
    message = "the comparison has 4 pictures, but the queue has room for 1; try again later"
    assert str(caught.value) == message
    marks = [job.request["comparison"] for job in reversed(service.jobs.find())]
    assert [mark["label"] for mark in marks] == ["all pedals", "without ink", "without neon glow", "no pedal"]
    assert len({mark["name"] for mark in marks}) == 1
    assert len({job.request["seed"] for job in service.jobs.find()}) == 1
    service.close()


def test_tokens(sdxl_model: Path) -> None:
    counter = TokenCounter(ModelFolder(sdxl_model))
    assert counter.room == 75
    assert counter.count("") == (0, 1)
    one, _ = counter.count("fox")
    assert counter.count("fox fox fox") == (3 * one, 1)
    assert counter.count(r"(fox:1.3) BREAK [fox]") == (2 * one, 2)
    assert counter.line("fox <lora:ink:1>") == f"{one} of 75 tokens · 1 adapter by tag"
    assert counter.line("fox " * 80) == f"{80 * one} of {75 * -(-80 * one // 75)} tokens in {-(-80 * one // 75)} chunks"
    assert "no closing" in counter.line("fox <lora:ink")


def job(**fields: Any) -> Job:
    own: dict[str, Any] = {"number": 3, "id": "a", "kind": "draw", "client": "", "request": {"count": 2}}
    own |= {"state": "running", "attempts": 1, "submitted": 0.0, "started": None, "ended": None, "reason": ""}
    return Job(**own | {"result": None} | fields)


def test_the_stage() -> None:
    assert "Your pictures appear here." in job_stage(None, 0)
    assert "job 3 waits for its turn · 2 waiting" in job_stage(job(state="queued"), 2)
    progress = JobProgress(step=25, steps=40, eta=4.2, preview=b"x")
    running = job_stage(job(progress=progress), 0, "<b>")
    assert "picture 2 of 2 · step 5 of 20 · 0 s · about 4 s to go" in running
    assert 'value="26" max="42"' in running  # a picture is decoded, and another one will be
    assert "&lt;b&gt;" in running
    last = JobProgress(step=20, steps=40, text="decoding")
    decoding = job_stage(job(progress=last), 0)
    assert "picture 1 of 2 · decoding · 0 s" in decoding
    assert 'value="20" max="42"' in decoding
    ready = job_stage(job(progress=JobProgress(step=1, steps=2, text=GETTING_READY)), 0)
    assert "picture 2 of 2 · getting ready · 0 s" in ready
    assert 'value="2" max="4"' in ready
    assert 'role="status">stopping · 0 s · 1 waiting<' in job_stage(job(progress=last, stopping=True), 1)
    assert 'role="status">stopping · 0 s<' in job_stage(job(stopping=True), 0)
    assert 'role="alert">failed: no &lt;disk&gt;' in job_stage(job(state="failed", reason="no <disk>"), 0)
    done = job(state="done", started=1.0, ended=3.5, result={"pictures": [{}, {}], "warnings": ["cut"]})
    assert "2 pictures in 2.5 s · cut" in job_stage(done, 0)
    done = job(state="done", started=1.0, ended=3.5, result={"pictures": [{}], "warnings": ["boat " * 2000]})
    assert len(job_stage(done, 0)) < 400


def test_gradio_can_hash_every_state(page: gr.Blocks) -> None:
    """It hashes the values of States to see whether they have changed; one without a hash breaks its listeners."""
    states = [block for block in page.blocks.values() if isinstance(block, gr.State)]
    assert states
    for state in states:
        deep_hash(state.value)


def test_gradio_downloads_nothing(page: gr.Blocks) -> None:
    """A request could name an address in place of the file that a box expects."""
    upload = next(block for block in page.blocks.values() if isinstance(block, gr.File))
    address = "https://name.invalid/ink.safetensors"
    with pytest.raises(gr.Error, match="is an address; upload the file itself"):
        asyncio.run(upload.async_move_resource_to_block_cache(address))
    with pytest.raises(gr.Error, match="is an address; upload the file itself"):
        upload.move_resource_to_block_cache(address)

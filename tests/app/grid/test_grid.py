"""Grids: the pictures are those that `generate` draws, the sheet has them in order, and what is wrong is said first."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lorablend.adapters import Blend, BlendItem, load_adapter
from lorablend.adapters.errors import Cancelled, InputError, LorablendError
from lorablend.app.cli.commands import run
from lorablend.app.grid.axes import Axis
from lorablend.app.grid.grid import Cell, Grid, draw_grid
from lorablend.app.pictures.png import open_picture, read_png
from lorablend.app.pictures.record import Record
from lorablend.engine import Pipeline
from lorablend.engine.request import Step
from tests.adapter_files import random_factors, write_kohya
from tests.app.pictures.on_sheet import places

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def pipe(sdxl_model: Path, lora_dir: Path) -> Pipeline:
    return Pipeline(sdxl_model, lora_dir=lora_dir)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(pipe: Pipeline, lora_dir: Path, prompt: str, *axes: str | Axis, **more: Any) -> Grid:
    settings: dict[str, Any] = {"seed": 7, "steps": 1} | more
    return draw_grid(pipe, prompt, axes=axes, lora_dir=lora_dir, **settings)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def blends(grid: Grid) -> list[list[tuple[str, float]]]:
    return [[(item.adapter.name, item.weight) for item in cell.result.blend] for cell in grid.cells]


# what is drawn


def test_every_cell_is_what_generate_draws(pipe: Pipeline, lora_dir: Path) -> None:
    """And the sheet shows it at its place: columns, rows, tables."""
    grid = draw(pipe, lora_dir, "a fox", "weight:ink=0.5,1", "steps=1,2", "seed=3,4", guidance_scale=2.0, steps=9)
    settings = [(w, steps, seed) for seed in (3, 4) for steps in (1, 2) for w in (0.5, 1)]
    assert [cell.number for cell in grid.cells] == list(range(1, 9))
    found: list[tuple[int, int]] = []
    for (weight, steps, seed), cell in zip(settings, grid.cells, strict=True):
        assert cell.phrases == (f"weight of ink {weight:g}", f"steps {steps}", f"seed {seed}")
        expected = pipe.generate("a fox", blend=[("ink", weight)], steps=steps, seed=seed, guidance_scale=2.0)
        assert cell.result.request == expected.request
        assert np.array_equal(pixels(cell.result.images[0]), pixels(expected.images[0]))
        found += places(grid.sheet, cell.result.images[0])
    assert len(found) == 8
    tables = [found[:4], found[4:]]
    for a, b, c, d in tables:
        assert a[0] == b[0] < c[0] == d[0]
        assert a[1] == c[1] < b[1] == d[1]
    assert tables[0] < tables[1]


def test_one_axis(pipe: Pipeline, lora_dir: Path) -> None:
    grid = draw(pipe, lora_dir, "a fox", Axis(name="guidance", values=(1.0, 3.0)))
    assert [cell.result.request.guidance_scale for cell in grid.cells] == [1, 3]


def test_weights(pipe: Pipeline, lora_dir: Path) -> None:
    """Of an adapter in --lora, in the prompt or in neither; and of all, times their own."""
    prompt, blend = "a fox <lora:neon glow:0.5>", [("ink", 0.2)]
    named = draw(pipe, lora_dir, prompt, "weight:neon glow=-1,2", blend=blend)
    assert blends(named) == [[("ink", 0.2), ("neon glow", -1)], [("ink", 0.2), ("neon glow", 2)]]
    file = lora_dir / "ink.safetensors"
    assert blends(draw(pipe, lora_dir, prompt, f"weight:{file}=1", blend=blend)) == [[("ink", 1), ("neon glow", 0.5)]]
    assert blends(draw(pipe, lora_dir, prompt, "weight:ink=1")) == [[("neon glow", 0.5), ("ink", 1)]]
    both = draw(pipe, lora_dir, prompt, "weight=0.5,3", "weight:ink=1,2", blend=blend)
    assert blends(both) == [
        [("ink", 0.5), ("neon glow", 0.25)],
        [("ink", 3), ("neon glow", 1.5)],
        [("ink", 1), ("neon glow", 0.25)],
        [("ink", 6), ("neon glow", 1.5)],
    ]


def test_all_weights_are_also_those_of_components(pipe: Pipeline, lora_dir: Path) -> None:
    blend = [{"adapter": "ink", "weight": 1.0, "unet": 0.5}]
    (cell,) = draw(pipe, lora_dir, "a fox", "weight=0.5", blend=blend).cells
    assert cell.result.request.blend["items"] == [{"adapter": "ink", "weight": 0.5, "unet": 0.25}]


def test_a_blend_as_it_is(pipe: Pipeline, lora_dir: Path) -> None:
    """With its mode; as a Blend, and as the JSON that pictures keep."""
    blend = Blend(tuple(BlendItem(load_adapter(path)) for path in sorted(lora_dir.iterdir())), "switch")
    for given in (blend, blend.to_dict()):
        (cell,) = draw(pipe, lora_dir, "a fox", "weight:ink=0.5", blend=given, steps=2).cells
        assert (cell.result.blend.mode, cell.result.blend.items[0].weight) == ("switch", 0.5)


def test_checkpoints(pipe: Pipeline, lora_dir: Path, tmp_path: Path) -> None:
    for number in (2, 10):
        (tmp_path / f"run-{number}.safetensors").write_bytes((lora_dir / "ink.safetensors").read_bytes())
    axes = [f"checkpoint={tmp_path}/run-*,neon glow", "weight:checkpoint=0.5,1"]
    grid = draw(pipe, lora_dir, "a fox <lora:ink:0.3>", *axes)
    names = ["run-2", "run-10", "neon glow"]
    assert blends(grid) == [[("ink", 0.3), (name, weight)] for weight in (0.5, 1) for name in names]
    assert [cell.phrases[0] for cell in grid.cells[:3]] == [f"checkpoint {name}" for name in names]


def test_words(pipe: Pipeline, lora_dir: Path) -> None:
    """Everywhere in both prompts, and inside of tags."""
    prompt = "a fox, red fox <lora:ink:0.5>"
    grid = draw(pipe, lora_dir, prompt, "prompt=fox|wolf", "prompt=0.5|1", negative_prompt="no fox")
    asked = [cell.result.request for cell in grid.cells]
    assert [one.prompt for one in asked] == ["a fox, red fox", "a wolf, red wolf"] * 2
    assert [one.negative_prompt for one in asked] == ["no fox", "no wolf"] * 2
    assert blends(grid) == [[("ink", 0.5)]] * 2 + [[("ink", 1)]] * 2


def test_schedulers_and_strengths(pipe: Pipeline, lora_dir: Path) -> None:
    image = Image.new("RGB", (64, 64), "teal")
    grid = draw(pipe, lora_dir, "a fox", "scheduler=euler,dpmpp_2m", "strength=0.5,1", image=image, steps=2)
    asked = [(cell.result.request.scheduler, cell.result.request.strength) for cell in grid.cells]
    assert asked == [("euler", 0.5), ("dpmpp_2m", 0.5), ("euler", 1), ("dpmpp_2m", 1)]


def test_one_seed_is_drawn_for_all(pipe: Pipeline, lora_dir: Path) -> None:
    grids = [draw(pipe, lora_dir, "a fox", "guidance=1,2", seed=None) for _ in range(2)]
    seeds = [{cell.result.request.seed for cell in grid.cells} for grid in grids]
    assert len(seeds[0]) == len(seeds[1]) == 1
    assert seeds[0] != seeds[1]


def test_the_order_of_work(pipe: Pipeline, lora_dir: Path) -> None:
    """Equal adapters together, then equal weights, then guidance; told to the caller as it goes."""
    told: list[tuple[str, int, int]] = []
    done: list[Cell] = []
    axes = ["guidance=1,2", "weight=1,2", "checkpoint=ink,neon glow"]
    grid = draw(pipe, lora_dir, "a fox", *reversed(axes), progress=lambda *one: told.append(one), each=done.append)
    assert [phrase for phrase, *_ in told] == [
        f"checkpoint {name}, all weights, times {weight}, guidance {guidance}"
        for name in ("ink", "neon glow")
        for weight in (1, 2)
        for guidance in (1, 2)
    ] + ["sheet"]
    assert [numbers for _, *numbers in told] == [[done, 8] for done in range(9)]
    assert sorted(cell.number for cell in done) == [cell.number for cell in grid.cells]
    assert [cell.number for cell in done] != [cell.number for cell in grid.cells]


def test_an_adapter_is_read_once(pipe: Pipeline, lora_dir: Path) -> None:
    grid = draw(pipe, lora_dir, "a fox <lora:ink:0.5>", "weight:ink=0,1", "prompt=fox|wolf")
    assert len({id(item.adapter) for cell in grid.cells for item in cell.result.blend}) == 1


def test_steps_are_told_and_can_stop_it(pipe: Pipeline, lora_dir: Path) -> None:
    steps: list[tuple[int, int, int]] = []

    def callback(step: Step) -> bool:
        steps.append((step.picture, step.pictures, step.index))
        return len(steps) < 4

    with pytest.raises(Cancelled):
        draw(pipe, lora_dir, "a fox", "guidance=1,2,3", steps=2, callback=callback)
    assert steps == [(0, 3, 0), (0, 3, 1), (1, 3, 0), (1, 3, 1)]


def test_the_sheet_knows_its_pictures(pipe: Pipeline, lora_dir: Path) -> None:
    grid = draw(pipe, lora_dir, "a fox", "weight:ink=0.5,1", "prompt=fox|wolf")
    form = json.loads(grid.to_json(pipe))
    assert form["axes"] == [
        {"name": "weight:ink", "labels": ["0.5", "1"]},
        {"name": "prompt", "labels": ["fox", "wolf"]},
    ]
    for cell, one in zip(grid.cells, form["cells"], strict=True):
        assert tuple(one["phrases"]) == cell.phrases
        record = Record.from_json(json.dumps(one["record"]))
        assert record.request == cell.result.request


# errors, before the first picture

ERRORS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "the grid has 0 axes; give 1 to 3": ("", [], {}),
    "the grid has 4 axes; give 1 to 3": ("", ["steps=1", "seed=1", "guidance=1", "weight:ink=1"], {}),
    "steps is on two axes; give it one": ("", ["steps=1", "steps=2"], {}),
    "the grid has 120 pictures (10×4×3); give at most 100": ("", ["seed=1..10", "steps=1..4", "guidance=1,2,3"], {}),
    "the weight of ink is on two axes; give it one": ("", ["weight:ink=1", "weight:ink.safetensors=1"], {}),
    "the axis weight is for all adapters, but there is none; name one: weight:ink=0,0.5,1": ("", ["weight=1"], {}),
    "ink is in the blend 2 times; its weight can only be swept if it is there once": (
        "<lora:ink><lora:ink>",
        ["weight:ink=1"],
        {},
    ),
    "ink has separate weights for UNet and text encoders; give it a single weight to sweep it": (
        "<lora:ink:0.5:0.8>",
        ["weight:ink=1"],
        {},
    ),
    "inc: no adapter with that name among the 2 in LORAS; did you mean ink?": ("", ["weight:inc=1"], {}),
    "steps is 0; give 1 to 1000": ("", ["steps=4,0"], {}),
    "seed is -1; give 0 to 9223372036854775743": ("", ["seed=1,-1"], {}),
    "guidance_scale is -2.0; give a number of 0 or more": ("", ["guidance=2,-2"], {}),
    "strength is given without image; give the picture to start from": ("", ["strength=0.5"], {}),
    "strength 0.1 of 4 steps leaves none to run: give 0.25 or more": (
        "",
        ["steps=20,4", "strength=0.5,0.1"],
        {"image": Image.new("RGB", (64, 64))},
    ),
    'scheduler is "eular"; did you mean "euler"?': (
        "",
        ["scheduler=euler,eular"],
        {},
    ),
    "steps is 3, but 2 timesteps are given: give one of the two": ("", ["steps=2,3"], {"timesteps": [999, 499]}),
    '"wolf" is neither in the prompt nor in the negative prompt; nothing to replace': ("a fox", ["prompt=wolf|ox"], {}),
    "inx: no adapter with that name among the 2 in LORAS; did you mean ink?": ("<lora:ink>", ["prompt=ink|inx"], {}),
    "width is 100; give a multiple of 8 from 64 to 4096, such as 96": ("", ["steps=1,2"], {"width": 100}),
    "wide changes unet mid_block.attentions.0.transformer_blocks.0.attn1.to_q of shape 7×128, the model's is 128×128; "
    "choose an adapter made for this model": ("", ["checkpoint=ink,WIDE"], {}),
    "broken.safetensors: not a safetensors file: 2 bytes long, the header alone needs 8": (
        "",
        ["checkpoint=ink,BROKEN"],
        {},
    ),
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors(message: str, pipe: Pipeline, lora_dir: Path, tmp_path: Path) -> None:
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    write_kohya(tmp_path / "wide.safetensors", random_factors({("unet", path): (7, 128)}))
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    prompt, axes, more = ERRORS[message]
    files = {"WIDE": str(tmp_path / "wide.safetensors"), "BROKEN": str(tmp_path / "broken.safetensors")}
    for name, file in files.items():
        axes = [axis.replace(name, file) for axis in axes]
    drawn: list[Cell] = []
    with pytest.raises(LorablendError) as caught:
        draw_grid(pipe, prompt, axes=axes, lora_dir=lora_dir, seed=7, each=drawn.append, **more)
    assert isinstance(caught.value, InputError)
    assert str(caught.value) == message.replace("LORAS", str(lora_dir))
    assert not drawn


# the command


def test_command(sdxl_model: Path, lora_dir: Path, here: Path, capsys: Capture) -> None:
    common = ["grid", str(sdxl_model), "a fox <lora:ink:0.5>", "--lora-dir", str(lora_dir), "--seed", "7"]
    axes = ["-x", "weight:neon glow=0,1", "-y", "steps=1,2"]
    assert run([*common, *axes, "--out", "a/b/sheet.png", "--pictures", "single", "--preset", "dmd2"]) == 0
    out, err = capsys.readouterr()
    stems = [
        "001-weight-of-neon-glow-0-steps-1",
        "003-weight-of-neon-glow-0-steps-2",
        "002-weight-of-neon-glow-1-steps-1",
        "004-weight-of-neon-glow-1-steps-2",
    ]
    assert out.splitlines() == [*(f"single/{stem}.png" for stem in stems), "a/b/sheet.png"]
    assert err.splitlines()[:2] == ["0 of 4: weight of neon glow 0, steps 1", "1 of 4: weight of neon glow 0, steps 2"]
    record = read_png(here / "single" / f"{stems[3]}.png").record
    assert record
    assert [(item.name, item.weight) for item in record.adapters] == [("ink", 0.5), ("neon glow", 1)]
    asked = record.request
    # The preset's timesteps are in place of steps, which the axis has.
    assert (asked.steps, asked.timesteps, asked.guidance_scale, asked.scheduler) == (2, None, 0, "lcm")
    form = json.loads(open_picture(here / "a/b/sheet.png").info["lorablend-grid"])
    assert Record.from_json(json.dumps(form["cells"][3]["record"])) == record


def test_command_with_all_of_generates_options(sdxl_model: Path, lora_dir: Path, here: Path, capsys: Capture) -> None:
    Image.new("RGB", (64, 72), "teal").save("start.png")
    Image.new("L", (64, 72), 255).save("mask.png")
    Path("blend.json").write_text('{"items": [{"adapter": "ink"}]}')
    options = {
        "--lora": "neon glow:0.4",
        "--lora-dir": str(lora_dir),
        "--blend": "blend.json",
        "--blend-mode": "switch",
        "--max-rank": "1",
        "--negative": "blurry",
        "--size": "72x64",
        "--steps": "2",
        "--guidance": "3",
        "--scheduler": "euler",
        "--spacing": "trailing",
        "--image": "start.png",
        "--strength": "1",
        "--mask": "mask.png",
        "--precision": "f32",
    }
    words = [word for pair in options.items() for word in pair]
    command = ["grid", str(sdxl_model), "a fox", "-x", "seed=1,2", "--out", "sheet.png", "--lenient", *words]
    assert run(command) == 0
    assert len(re.findall(r"recompressed \d+ modules", capsys.readouterr().err)) == 1  # the same for both
    form = json.loads(open_picture(here / "sheet.png").info["lorablend-grid"])
    record = Record.from_json(json.dumps(form["cells"][1]["record"]))
    asked = record.request
    assert asked.blend == {
        "mode": "switch",
        "items": [{"adapter": "ink", "weight": 1}, {"adapter": "neon glow", "weight": 0.4}],
    }
    assert (asked.width, asked.height, asked.steps, asked.seed, asked.strength) == (72, 64, 2, 2, 1)
    assert (asked.negative_prompt, asked.guidance_scale, asked.scheduler) == ("blurry", 3, "euler")
    assert (asked.spacing, record.max_rank, record.precision, record.lenient) == ("trailing", 1, "f32", True)


COMMAND_ERRORS = {
    "--out sheet.jpg -x steps=1": "sheet.jpg is not the name of a PNG; give one that ends in .png",
    "--out there.png -x steps=1": "there.png is already there; choose another name or delete it",
    "--out there.png/sheet.png -x steps=1": "there.png is a file; give a folder for the pictures",
    "--out sheet.png -x steps=1 --pictures there.png": "there.png is a file; give a folder for the pictures",
    "--out sheet.png -x steps=1 -y step=1": 'a grid has no axis "step"; did you mean "steps"?',
    "--out sheet.png -x steps=1,0": "steps is 0; give 1 to 1000",
}


@pytest.mark.parametrize("line", COMMAND_ERRORS)
def test_command_errors(line: str, sdxl_model: Path, here: Path, capsys: Capture) -> None:
    Image.new("L", (8, 8)).save("there.png")
    assert run(["grid", str(sdxl_model), "a fox", *line.split()]) == 1
    assert capsys.readouterr() == ("", f"error: {COMMAND_ERRORS[line]}\n")
    assert [path.name for path in here.iterdir()] == ["there.png"]


def test_ctrl_c_leaves_whole_pictures_and_no_sheet(sdxl_model: Path, tmp_path: Path) -> None:
    code = "from lorablend.app.cli.commands import main; main()"
    command = ["grid", str(sdxl_model), "a fox", "-x", "seed=1..100", "--steps", "20"]
    child = subprocess.Popen(
        [sys.executable, "-c", code, *command, "--out", "sheet.png", "--pictures", "single"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
        env=os.environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored in background jobs
    )
    assert child.stderr is not None
    while not child.stderr.readline().startswith("3 of 100"):
        assert child.poll() is None
    time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert err.endswith("stopped\n")
    assert "Traceback" not in err
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) >= 3
    assert set(out.split()) <= set(files)
    assert all(re.fullmatch(r"single/\d{3}-seed-\d+\.png", file) for file in files)
    assert all(read_png(tmp_path / file).record for file in files)

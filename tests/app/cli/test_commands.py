"""The command line: every command, every error in one line, the help."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from safetensors.numpy import load_file, save_file

from lorablend.adapters.blends.blend import MODES
from lorablend.app.cli.commands import app, run
from lorablend.app.pictures.png import open_picture, read_png
from lorablend.engine import ModelFolder
from lorablend.engine.presets import PRESETS
from lorablend.engine.schedulers import SCHEDULERS, SPACINGS

Capture = pytest.CaptureFixture[str]


def commands() -> Iterator[tuple[str, Any]]:
    """(what is typed, the command) of every command, groups included."""
    waiting = [("", typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop()
        yield name, command
        waiting += [(f"{name} {child}".strip(), c) for child, c in getattr(command, "commands", {}).items()]


COMMANDS = dict(commands())


def pixels(path: Path | str) -> np.ndarray:
    return np.asarray(open_picture(Path(path))).astype(int)


# help


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str, capsys: Capture) -> None:
    assert run([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: lorablend {name}".rstrip())
    command = COMMANDS[name]
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"{parameter.opts} has no help"
            assert parameter.opts[-1] in text
        else:
            assert re.search(rf"\b{parameter.metavar.strip('[]')}\b", command.help), (
                f"the help does not explain {parameter.metavar}"
            )
    if not hasattr(command, "commands"):
        assert f"Example:\n    lorablend {name} " in text or f"Example:\n    lorablend {name}\n" in text


def test_help_names_every_scheduler_and_spacing(capsys: Capture) -> None:
    run(["generate", "--help"])
    text = capsys.readouterr().out
    assert all(re.search(rf"\b{name}\b", text) for name in (*SCHEDULERS, *SPACINGS))


@pytest.mark.parametrize("group", ["", "adapters"])
def test_a_group_alone_shows_its_help(group: str, capsys: Capture) -> None:
    assert run(group.split()) == 0
    assert capsys.readouterr().out.startswith(f"Usage: lorablend {group}".rstrip())


def test_version(capsys: Capture) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"lorablend {version('lorablend')}\n"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from lorablend.app.cli.commands import run; run(['generate', '--help']);"
        "print(sorted({'openvino', 'gradio', 'torch', 'PIL', 'huggingface_hub'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == "[]\n"


# generate


def test_generate(sdxl_model: Path, lora_dir: Path, here: Path, capsys: Capture) -> None:
    common = ["generate", str(sdxl_model), "a fox", "--steps", "2", "--seed", "7", "--negative", "blurry"]
    settings = ["--guidance", "3", "--scheduler", "dpmpp_2m", "--spacing", "karras", "--size", "64X72", "--out", "a/b"]
    assert run([*common, *settings]) == 0
    assert run([*common, *settings, "--lora", f"{lora_dir / 'ink.safetensors'}:0.5"]) == 0
    out, err = capsys.readouterr()
    bare, styled = out.split()
    assert re.fullmatch(r"(picture 1 of 1: 2 steps, \d+\.\d s\n){2}", err)
    assert np.abs(pixels(bare) - pixels(styled)).max() > 8
    record = read_png(here / styled).record
    assert record
    asked = record.request
    assert (asked.prompt, asked.negative_prompt) == ("a fox", "blurry")
    assert asked.blend == {"mode": "sum", "items": [{"adapter": "ink", "weight": 0.5}]}
    assert (asked.width, asked.height, asked.steps, asked.guidance_scale) == (64, 72, 2, 3.0)
    assert (asked.scheduler, asked.spacing, asked.seed) == ("dpmpp_2m", "karras", 7)


def test_generate_with_tags_and_several_pictures(sdxl_model: Path, lora_dir: Path, here: Path, capsys: Capture) -> None:
    common = ["generate", str(sdxl_model), "a fox <lora:neon glow:-0.5>", "--lora-dir", str(lora_dir), "--steps", "1"]
    assert run([*common, "--lora", "ink", "--count", "2", "--seed", "7"]) == 0
    assert run([*common, "--lora", "ink", "--seed", "8"]) == 0
    first, second, alone = capsys.readouterr().out.split()
    assert np.array_equal(pixels(second), pixels(alone))
    assert not np.array_equal(pixels(first), pixels(second))
    record = read_png(here / first).record
    assert record
    items = [{"adapter": "ink", "weight": 1.0}, {"adapter": "neon glow", "weight": -0.5}]
    assert record.request.blend == {"mode": "sum", "items": items}


def test_generate_with_all_that_a_blend_can_say(sdxl_model: Path, lora_dir: Path, here: Path, capsys: Capture) -> None:
    """From a file, from --lora, from the prompt; then the picture's own record draws the same once more."""
    form = {"mode": "sum", "items": [{"adapter": "ink", "weight": 0.5, "blocks": {"mid_block": 0}}]}
    Path("blend.json").write_text(json.dumps(form))
    common = ["generate", str(sdxl_model), "--lora-dir", str(lora_dir), "--steps", "2", "--seed", "7"]
    neon = "<lora:neon glow:1:unet=-0.5:step=2-3:mask=0,0,0.5,1>"
    tags = ["a fox <lora:ink:0.25:lbw=OUTALL>", "--lora", neon]
    assert run([*common, *tags, "--blend", "blend.json", "--blend-mode", "switch"]) == 0
    first = capsys.readouterr().out.strip()
    record = read_png(here / first).record
    assert record
    assert record.request.blend == {
        "mode": "switch",
        "items": [
            form["items"][0],
            {
                "adapter": "neon glow",
                "weight": 1,
                "unet": -0.5,
                "schedule": {"start": 2, "stop": 3},
                "mask": [0, 0, 0.5, 1],
            },
            {"adapter": "ink", "weight": 0.25, "blocks": "OUTALL"},
        ],
    }
    Path("again.json").write_text(json.dumps(record.request.blend))
    assert run([*common, "a fox", "--blend", "again.json"]) == 0
    assert np.array_equal(pixels(first), pixels(capsys.readouterr().out.strip()))


def test_a_preset_and_what_the_user_says_himself(sdxl_model: Path, here: Path, capsys: Capture) -> None:
    common = ["generate", str(sdxl_model), "a fox", "--seed", "7", "--preset"]
    drawn = {"lightning-2": [], "hyper-4": ["--steps", "1", "--guidance", "0"], "quality": ["--steps", "2"]}
    drawn["lcm"] = ["--steps", "1", "--scheduler", "euler", "--guidance", "3"]
    drawn["dmd2"] = []
    drawn["tcd"] = ["--timesteps", "999,249"]
    settings = {}
    for name, own in drawn.items():
        assert run([*common, name, *own]) == 0
        record = read_png(here / capsys.readouterr().out.strip()).record
        assert record
        asked = record.request
        settings[name] = (asked.steps, asked.guidance_scale, asked.scheduler, asked.spacing or asked.timesteps)
    assert settings == {
        "lightning-2": (2, 0, "euler", "trailing"),
        "hyper-4": (1, 0, "ddim", "trailing"),
        "quality": (2, 6, "dpmpp_2m", "karras"),
        "lcm": (1, 3, "euler", "trailing"),
        "dmd2": (4, 0, "lcm", (999, 749, 499, 249)),
        "tcd": (2, 0, "tcd", (999, 249)),
    }


def test_help_names_every_preset_and_mode(capsys: Capture) -> None:
    run(["generate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(re.search(rf"\b{name}\b", text) for name in (*PRESETS, *MODES))


def test_adapters_come_from_the_library(
    sdxl_model: Path, lora_dir: Path, here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that a picture was drawn with are noted there; a folder that is no library is left as it is."""
    library = here / "library"
    monkeypatch.setenv("LORABLEND_ADAPTERS", str(library))
    assert run(["adapters", "add", str(lora_dir / "ink.safetensors")]) == 0
    assert run(["adapters", "add", str(lora_dir / "neon glow.safetensors")]) == 0
    capsys.readouterr()
    common = ["generate", str(sdxl_model), "a fox <lora:ink:0.5>", "--steps", "1", "--seed", "7"]
    assert run(common) == 0
    assert run([*common, "--lora-dir", str(lora_dir)]) == 0
    from_library, from_folder = capsys.readouterr().out.split()
    assert np.array_equal(pixels(from_library), pixels(from_folder))
    assert not (lora_dir / ".lorablend").exists()
    assert run(["adapters", "list", "--json"]) == 0
    used = {entry["name"]: entry["last_used"] for entry in json.loads(capsys.readouterr().out)}
    assert used["neon glow"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", used["ink"])
    assert run(["bake", str(sdxl_model), "baked", "--lora", "ink"]) == 0

    # Marks that cannot be kept cost no picture.
    (library / ".lorablend" / "marks.json").write_text("broken")
    assert run(common) == 0


def test_lenient_and_max_rank(sdxl_model: Path, lora_dir: Path, here: Path, capsys: Capture) -> None:
    """Both with an adapter that has one tensor too many, which is refused without --lenient."""
    tensors = load_file(lora_dir / "ink.safetensors")
    save_file(tensors | {"lora_unet_down_blocks_9.lora_down.weight": np.zeros((1, 1), np.float32)}, "odd.safetensors")
    common = ["generate", str(sdxl_model), "a fox", "--steps", "1", "--seed", "7", "--lora", "odd.safetensors"]
    assert run(common) == 1
    assert "lora_unet_down_blocks_9" in capsys.readouterr().err
    assert run([*common, "--lenient"]) == 0
    whole, err = capsys.readouterr()
    assert re.search("^warning: odd: ", err, re.MULTILINE)
    assert run([*common, "--lenient", "--max-rank", "1"]) == 0
    smaller, err = capsys.readouterr()
    smaller = smaller.strip()
    report = r"^recompressed 3 modules; error \d+\.\d\d% in the mean, \d+\.\d\d% at most \(\w+_block\S+\)$"
    assert re.search(report, err, re.MULTILINE)
    assert not np.array_equal(pixels(whole.strip()), pixels(smaller))
    record = read_png(here / smaller).record
    assert record
    assert (record.lenient, record.max_rank, record.precision) == (True, 1, None)
    bake = ["bake", str(sdxl_model), "baked", "--lora", "odd.safetensors"]
    assert run(bake) == 1
    capsys.readouterr()
    assert run([*bake, "--lenient"]) == 0
    assert re.search("^warning: odd: ", capsys.readouterr().err, re.MULTILINE)


def test_generate_from_a_picture_and_a_mask(sdxl_model: Path, here: Path, capsys: Capture) -> None:
    from PIL import Image

    common = ["generate", str(sdxl_model), "a fox", "--steps", "2", "--seed", "7"]
    assert run(common) == 0
    start = capsys.readouterr().out.strip()
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 64, 32))
    mask.save("mask.png")
    assert run([*common, "--image", start, "--strength", "1", "--mask", "mask.png", "--scheduler", "euler_a"]) == 0
    changed = np.abs(pixels(capsys.readouterr().out.strip()) - pixels(start)).max(axis=(1, 2))
    assert changed[:32].max() > 0
    assert changed[32:].max() == 0


def test_a_warning_is_shown(sdxl_model: Path, here: Path, capsys: Capture) -> None:
    assert run(["generate", str(sdxl_model), "fox " * 200, "--steps", "1", "--runtime", "genai"]) == 0
    assert "\nwarning: the prompt is too long for the model; left out: " in capsys.readouterr().err


def test_ctrl_c_leaves_nothing(sdxl_model: Path, tmp_path: Path) -> None:
    """With a terminal, so that the bar is seen too."""
    terminal, theirs = pty.openpty()
    command = ["generate", str(sdxl_model), "a fox", "--steps", "500", "--out", "out"]
    env = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    child = subprocess.Popen(
        [sys.executable, "-m", "lorablend.app.cli", *command],  # as accelerate launch -m starts it
        stderr=theirs,
        cwd=tmp_path,
        env=env,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored in background jobs
    )
    os.close(theirs)
    seen = b""
    while not re.search(rb"picture 1 of 1.*\d+/500", seen):
        seen += os.read(terminal, 65536)
    child.send_signal(signal.SIGINT)
    try:
        while more := os.read(terminal, 65536):  # first, for a terminal that is full blocks the bar
            seen += more
    except OSError:  # the terminal's other end is closed
        pass
    assert child.wait(timeout=60) == 130
    os.close(terminal)
    assert seen.endswith(b"stopped\r\n")
    assert b"Traceback" not in seen
    assert not list(tmp_path.iterdir())


# the other commands


def test_bake(sdxl_model: Path, lora_dir: Path, here: Path, capsys: Capture) -> None:
    assert run(["bake", str(sdxl_model), "baked", "--lora", "ink:0.5", "--lora-dir", str(lora_dir)]) == 0
    out, err = capsys.readouterr()
    assert out == "baked\n"
    assert re.fullmatch(r"baked in \d+\.\d s\n", err)
    assert ModelFolder(here / "baked").family == "sdxl"


def test_inspect(lora_dir: Path, capsys: Capture) -> None:
    file = lora_dir / "ink.safetensors"
    assert run(["adapters", "inspect", str(file)]) == 0
    lines = dict(
        line.split(None, 1) for line in capsys.readouterr().out.replace("base model", "base_model").splitlines()
    )
    assert lines["file"] == "ink.safetensors"
    assert lines["trigger"] == "words  ink drawing"
    assert lines["algorithm"] == "lora (4 modules)"
    assert lines["unet"] == "3 modules, rank 4, alpha 2, f32"
    assert lines["text_encoder_2"] == "1 modules, rank 4, alpha 2, f32"
    assert run(["adapters", "inspect", str(file), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert lines["sha256"] == report["hashes"]["sha256"]
    assert lines["base_model"] == {"sdxl": "SDXL"}.get(report["base_model"], report["base_model"])
    assert len(report["components"]["unet"]["modules"]) == 3


def test_devices(capsys: Capture) -> None:
    assert run(["devices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"CPU +\S", line) for line in lines)
    assert run(["devices", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [f"{one['name']:<8} {one['full_name']}" for one in found] == lines


def test_generate_as_json(here: Path, capsys: Capture) -> None:
    """One document with all pictures on stdout, also after an error, and everything for people on stderr."""
    common = ["generate", "demo", "a boat AND a sea", "--steps", "1", "--size", "64x64", "--json"]
    assert run([*common, "--count", "2", "--seed", "7"]) == 0
    out, err = capsys.readouterr()
    pictures = json.loads(out)
    assert [picture["seed"] for picture in pictures] == [7, 8]
    for picture in pictures:
        assert picture.keys() == {"path", "seed", "seconds", "warnings"}
        assert (here / picture["path"]).exists()
        assert picture["seconds"] > 0
        (warning,) = picture["warnings"]
        assert warning.startswith("'AND' is drawn as plain text")
        assert f"warning: {warning}" in err.splitlines()
    assert run([*common, "--steps", "0"]) == 1
    assert capsys.readouterr() == ("[]\n", "error: steps is 0; give 1 to 1000\n")


def test_convert(sdxl_source: Path, here: Path, capsys: Capture) -> None:
    assert run(["convert", str(sdxl_source), "converted"]) == 0
    out, err = capsys.readouterr()
    assert out == "converted\n"
    assert re.search(r"^\d of \d: unet$", err, re.MULTILINE)
    assert re.search(r"^unet: \d+\.\d GB of memory at most$", err, re.MULTILINE)
    assert ModelFolder(here / "converted").family == "sdxl"


def test_demo(here: Path, capsys: Capture) -> None:
    assert run(["demo", "--out", "out"]) == 0
    assert "trained on drawn scenes" in capsys.readouterr().out
    assert (here / "out" / "sheet.png").exists()
    assert run(["generate", "demo", "a red boat", "--steps", "1"]) == 0


@pytest.mark.parametrize(
    ("users", "before", "after"),
    [([], None, None), (["--users", "u"], None, "1"), (["--users", "u"], "0", "0"), (["--users", "u"], "1", "1")],
)
def test_users_do_not_get_the_owners_hub_token(
    here: Path, monkeypatch: pytest.MonkeyPatch, users: list[str], before: str | None, after: str | None
) -> None:
    """Unless the owner says so; the Hub's library reads this when it is imported."""
    name = "HF_HUB_DISABLE_IMPLICIT_TOKEN"
    monkeypatch.setenv(name, "")  # so that it is restored
    monkeypatch.delenv(name)
    if before is not None:
        monkeypatch.setenv(name, before)
    assert run(["serve", "nosuch", *users]) == 1
    assert os.environ.get(name) == after

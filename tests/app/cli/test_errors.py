"""Errors of the command line: one line, exit code 1, nothing left behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lorablend.app.cli.commands import run

Capture = pytest.CaptureFixture[str]


ERRORS = {
    "nosuch": """no such command 'nosuch'; see "lorablend --help\"""",
    "generate": """missing argument 'MODEL'; see "lorablend generate --help\"""",
    "generate MODEL": """missing argument 'PROMPT'; see "lorablend generate --help\"""",
    "generate nosuch x": "nosuch does not exist; give a model folder written by `lorablend convert`",
    "generate MODEL x --size 100": "size is '100'; write WIDTHxHEIGHT, such as 1024x1024",
    "generate MODEL x --size 100x64": "width is 100; give a multiple of 8 from 64 to 4096, such as 96",
    "generate MODEL x --size 64x8000": ("height is 8000; give a multiple of 8 from 64 to 4096, such as 4096"),
    "generate MODEL x --steps 0": "steps is 0; give 1 to 1000",
    "generate MODEL x --timesteps 999,b": ("timesteps is '999,b'; write numbers with commas, such as 999,749,499,249"),
    "generate MODEL x --timesteps 999,nan": "timesteps has nan; give numbers",
    "generate MODEL x --timesteps 9,99": "timesteps must fall, but 99 comes after 9: give the largest first",
    "generate MODEL x --timesteps 999 --spacing karras": (
        "spacing karras and timesteps are both given: give one of the two"
    ),
    "generate MODEL x --timesteps 999,1 --steps 4": "steps is 4, but 2 timesteps are given: give one of the two",
    "generate MODEL x --timesteps 999,1 --runtime genai": (
        "runtime=genai cannot follow timesteps: give steps and spacing, or choose runtime=live"
    ),
    "generate MODEL x --count 0": "count is 0; give 1 to 10000",
    "generate MODEL x --guidance nan": "guidance_scale is nan; give a number of 0 or more",
    "generate MODEL x --strength 0.5": "strength is given without image; give the picture to start from",
    "generate MODEL x --mask white.png": "mask is given without image; give the picture that it belongs to",
    "generate MODEL x --image white.png --strength 2": "strength is 2.0; give a number above 0, at most 1",
    "generate MODEL x --image nosuch.png": "nosuch.png cannot be read: No such file or directory",
    "generate MODEL x --image text.txt": "text.txt is not a picture; give a PNG, JPEG or WebP file",
    "generate MODEL x --out text.txt": "text.txt is a file; give a folder for the pictures",
    "generate MODEL x --device TPU": "device TPU not found; this machine has {devices}",
    "generate MODEL x --runtime fast": "runtime is 'fast'; choose one of auto, live, genai",
    "generate MODEL x --precision int4": "precision is 'int4'; choose one of f32, f16, bf16",
    "generate MODEL x --lora nosuch.safetensors": (
        "nosuch.safetensors: no such file, and no adapter folder to search for the name"
    ),
    "generate MODEL x --lora text.txt": "text.txt: no such file, and no adapter folder to search for the name",
    "generate MODEL x --lora nosuch.safetensors --lora-dir LORAS": (
        "nosuch.safetensors: no such file, and no adapter with that name among the 2 in LORAS"
    ),
    "generate MODEL <lora:inc:1> --lora-dir LORAS": (
        "inc: no adapter with that name among the 2 in LORAS; did you mean ink?"
    ),
    "generate MODEL x --lora ink:nan --lora-dir LORAS": '"ink:nan": weight "nan" is not a finite number',
    "generate MODEL <lora:/etc/ink:1> --lora-dir LORAS": (
        '<lora:/etc/ink:1>: "/etc/ink" is a path; in a prompt, give a name'
    ),
    "generate MODEL x --lora <lora:ink:1:lbw=1> --lora-dir LORAS": (
        '<lora:ink:1:lbw=1>: lbw "1" is neither a preset nor a list; choose from '
        "NONE, ALL, ALL0.5, INS, IND, INALL, MIDD, OUTD, OUTS, OUTALL"
    ),
    "generate MODEL x --blend nosuch.json": "nosuch.json: No such file or directory",
    "generate MODEL x --blend text.txt": "text.txt: not valid JSON: Expecting value: line 1 column 1 (char 0)",
    "generate MODEL x --blend white.png": "white.png: not text in UTF-8",
    "generate MODEL x --blend-mode both": 'blend mode "both" is unknown; choose from sum, switch, composite',
    "generate MODEL x --preset lightning": 'no preset "lightning"; did you mean "lightning-8"?',
    "generate MODEL x --max-rank 0": "max_rank is 0; give 1 or more",
    "bake MODEL out --blend nosuch.json": "nosuch.json: No such file or directory",
    "bake MODEL out": "there is nothing to bake; give at least one --lora FILE:WEIGHT",
    "bake MODEL full --lora ink --lora-dir LORAS": "full exists and is not empty; give a new folder",
    "convert nosuch out": (
        "nosuch is not a diffusers folder, .safetensors checkpoint or Hugging Face id; give one of the three"
    ),
    "convert MODEL out --weights int3": "weights is 'int3'; give one of fp16, int8, fp32",
    "adapters inspect nosuch": "nosuch: cannot be read (No such file or directory)",
    "ui nosuch": "nosuch does not exist; give a model folder written by `lorablend convert`",
    "ui MODEL --lora-dir nosuch": "nosuch is not a folder; give an existing folder of adapters",
    "serve MODEL --host 127.0.0.2 --listen --token x": (
        "--host 127.0.0.2 and --listen are both given; --listen means --host 0.0.0.0, give one"
    ),
    "serve demo --model nosuch": "the model is demo and --model nosuch; give one of the two",
    "ui MODEL --data data --token=": "the token is empty; give one, such as 32 random letters",
    "ui MODEL --host 192.0.2.1 --token xxxxxxxxxxxxxxxx": "cannot listen at 192.0.2.1: cannot assign requested address",
}


@pytest.mark.parametrize("line", ERRORS)
def test_errors(line: str, sdxl_model: Path, lora_dir: Path, here: Path, capsys: Capture) -> None:
    import openvino
    from PIL import Image

    Image.new("L", (64, 64), 255).save("white.png")
    Path("text.txt").write_text("text")
    Path("full").mkdir()
    Path("full/file").touch()
    before = sorted(here.rglob("*"))
    names = {"MODEL": str(sdxl_model), "LORAS": str(lora_dir)}
    assert run([names.get(word, word) for word in line.split()]) == 1
    out, err = capsys.readouterr()
    message = ERRORS[line].format(devices=", ".join(openvino.Core().available_devices)).replace("LORAS", str(lora_dir))
    assert err == f"error: {message}\n"
    assert out == ""
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("--nosuch", 'no such option.*--nosuch.*; see "lorablend --help"'),
        ("generate m x --steps many", """invalid value for '--steps': .*; see "lorablend generate --help\""""),
        ("ui m --port 0", """invalid value for '--port': .*; see "lorablend ui --help\""""),
    ],
)
def test_errors_in_the_parsers_words(line: str, pattern: str, capsys: Capture) -> None:
    """Typer's versions differ in the middle."""
    assert run(line.split()) == 1
    assert re.fullmatch(f"error: {pattern}\n", capsys.readouterr().err)


def test_a_full_disk_is_one_line(
    sdxl_model: Path, here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _content: bytes) -> int:
        raise OSError(28, "No space left on device", str(path.name))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run(["generate", str(sdxl_model), "x", "--steps", "1", "--out", "."]) == 1
    assert capsys.readouterr().err.endswith(": No space left on device\n")
    assert not list(here.iterdir())


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("lorablend.engine.devices.devices", broken)
    with pytest.raises(ZeroDivisionError):
        run(["devices"])

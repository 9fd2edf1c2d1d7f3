"""`lorablend picture`: what a picture says, with what is here and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorablend.app.cli.commands import run
from tests.app.pictures.metadata.written import A1111, png_file

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "boat.png"
    text = A1111.replace("<lora:ink:0.8>", "<lora:ink:0.8:0.5> <lora:lost:1> <lora:neon_glow:1:lbw=OUTALL>")
    path.write_bytes(png_file({"parameters": f"{text}, Clip skip: 2"}))
    return path


def test_as_the_picture_says_it(file: Path, lora_dir: Path, capsys: Capture) -> None:
    assert run(["picture", str(file), "--lora-dir", str(lora_dir)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "program: AUTOMATIC1111 (or its form)",
        "prompt: a red boat",
        "negative_prompt: blurry",
        "steps: 20",
        "scheduler: euler_a",
        "guidance_scale: 6.0",
        "seed: 12",
        "width: 512",
        "height: 768",
        "model: foo",
        "adapter: ink: 0.8 unet=0.5",
        "adapter: neon glow: 1 blocks=OUTALL",
        "missing: Clip skip (2) is not done here",
        "missing: the adapter lost is not here",
    ]


def test_as_json(file: Path, lora_dir: Path, capsys: Capture) -> None:
    assert run(["picture", str(file), "--lora-dir", str(lora_dir), "--model", "demo", "--json"]) == 0
    form = json.loads(capsys.readouterr().out)
    assert list(form) == ["program", "settings", "missing"]
    assert form["settings"] == {
        "prompt": "a red boat",
        "negative_prompt": "blurry",
        "steps": 20,
        "scheduler": "euler_a",
        "guidance_scale": 6.0,
        "seed": 12,
        "width": 512,
        "height": 768,
        "blend": {
            "items": [
                {"adapter": "ink", "weight": 0.8, "unet": 0.5},
                {"adapter": "neon glow", "weight": 1.0, "blocks": "OUTALL"},
            ]
        },
    }
    assert form["missing"] == [
        "Clip skip (2) is not done here",
        "the adapter lost is not here",
        "the model foo is not here; demo is used",
    ]


def test_without_a_folder_of_adapters(
    file: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are named as in the picture; nothing is missing that was not looked for."""
    monkeypatch.setenv("LORABLEND_ADAPTERS", str(tmp_path / "none"))
    assert run(["picture", str(file), "--json"]) == 0
    form = json.loads(capsys.readouterr().out)
    assert [item["adapter"] for item in form["settings"]["blend"]["items"]] == ["ink", "lost", "neon_glow"]
    assert form["missing"] == ["Clip skip (2) is not done here"]


def test_refused_in_one_line(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "plain.png"
    path.write_bytes(png_file({}))
    assert run(["picture", str(path)]) == 1
    line = f"error: {path} says nothing about how it was made; give a picture as the program saved it\n"
    assert capsys.readouterr().err == line
    assert run(["picture", str(tmp_path / "lost.png")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'lost.png'}: No such file or directory\n"

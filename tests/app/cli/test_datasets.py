"""`lorablend dataset`: prepare and check from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lorablend.app.cli.commands import run
from lorablend.train.data.layouts import UNDERSTOOD
from tests.train.data.data_files import pattern, save

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three pictures in data, two of them alike."""
    monkeypatch.chdir(tmp_path)
    save(Path("data/a.png"), 1, (200, 200), caption="a fox")
    save(Path("data/b.png"), 2, (300, 180), caption="a hare")
    pattern(1, (100, 100)).save("data/c.png")
    return tmp_path


def test_prepare(here: Path, capsys: Capture) -> None:
    assert run(["dataset", "prepare", "data", "ready", "--resolution", "128", "--trigger", "sks"]) == 0
    out, err = capsys.readouterr()
    assert out == "ready\nready-sheet.png\n"
    assert err.splitlines()[:3] == [
        "1 of 2: pictures",
        "2 of 2: pictures",
        "a folder of pictures; 3 pictures; captions: 2 from .txt files",
    ]
    assert err.splitlines()[-3:] == ["128×128: 1 picture", "160×96: 1 picture", "2 of 3 pictures in ready"]
    assert Path("ready/1_sks/a.txt").read_text() == "sks, a fox\n"
    assert Image.open("ready/1_sks/b.png").size == (160, 96)
    assert run(["dataset", "prepare", "data", "ready"]) == 1
    assert capsys.readouterr().err == "error: ready is already there; choose another name or delete it\n"
    assert run(["dataset", "prepare", "data", "square", "--resolution", "128", "--square"]) == 0
    assert Image.open("square/b.png").size == (128, 128)


def test_prepare_with_captions_from_names(here: Path, capsys: Capture) -> None:
    assert run(["dataset", "prepare", "data", "ready", "--captions", "names"]) == 1
    assert capsys.readouterr().err == "error: captions is names; give files or folders\n"
    save(Path("more/red foxes/IMG_1.png"), 1)
    assert run(["dataset", "prepare", "more", "ready", "--resolution", "64", "--captions", "folders"]) == 0
    assert Path("ready/1_red/IMG_1.txt").read_text() == "red foxes\n"


def test_prepare_with_damaged_pictures(here: Path, capsys: Capture) -> None:
    Path("data/d.jpg").write_bytes(b"x")
    problem = "d.jpg is not a picture, or damaged; save it again as PNG or JPEG"
    assert run(["dataset", "prepare", "data", "ready"]) == 1
    assert capsys.readouterr().err == f"error: {problem}\n"
    assert run(["dataset", "prepare", "data", "ready", "--resolution", "64", "--skip-bad"]) == 0
    assert f"left out: {problem}\n" in capsys.readouterr().err


def test_check(here: Path, sdxl_source: Path, capsys: Capture) -> None:
    common = ["dataset", "check", "data", "--model", str(sdxl_source), "--batch", "2", "--steps", "10"]
    assert run([*common, "--trigger", "sks", "--resolution", "128", "--repeats", "3"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "a folder of pictures; 3 pictures; captions: 2 from .txt files"
    assert "note: 1 picture: c.png without a caption" in lines
    assert "trigger: sks" in lines
    assert "an epoch: 9 pictures with repeats, 5 batches of 2, 1 of them not full; mean batch 1.8" in lines
    assert lines[-1] == 'note: c.png looks like a.png; "lorablend dataset prepare" leaves it out'


def test_check_as_json(here: Path, sdxl_source: Path, capsys: Capture) -> None:
    common = ["dataset", "check", "data", "--model", str(sdxl_source), "--steps", "10", "--resolution", "128", "--json"]
    assert run([*common, "--trigger", "sks"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pictures"], found["problems"]) == (3, [])
    assert 'c.png looks like a.png; "lorablend dataset prepare" leaves it out' in found["notes"]
    assert found["summary"][0] == "a folder of pictures; 3 pictures; captions: 2 from .txt files"
    Path("data/d.jpg").write_bytes(b"x")
    assert run(common) == 1
    out, err = capsys.readouterr()
    problem = "d.jpg is not a picture, or damaged; save it again as PNG or JPEG"
    assert json.loads(out) == {"pictures": 3, "problems": [problem], "notes": [], "summary": []}
    assert err == f"error: {problem}\n"
    assert run(["dataset", "check", "gone", "--model", "nowhere/at-all", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["pictures"], found["problems"]) == (0, ["gone does not exist; give a folder of pictures"])


def test_check_refuses_before_it_looks_for_the_model(here: Path, capsys: Capture) -> None:
    assert run(["dataset", "check", "gone", "--model", "nowhere/at-all"]) == 1
    assert capsys.readouterr() == ("", "error: gone does not exist; give a folder of pictures\n")
    Path("empty").mkdir()
    assert run(["dataset", "check", "empty", "--model", "nowhere/at-all"]) == 1
    assert capsys.readouterr().err == f"error: empty: no pictures, nothing found; {UNDERSTOOD}\n"
    for text in Path("data").glob("*.txt"):
        text.unlink()
    assert run(["dataset", "check", "data", "--model", "nowhere/at-all"]) == 1
    assert capsys.readouterr().err == (
        "error: none of the 3 pictures in data has a caption, and there is no trigger word; write name.txt next to "
        "name.png, or give a trigger\n"
    )


def test_prepare_needs_no_torch(here: Path) -> None:
    code = (
        "import sys; from lorablend.app.cli.commands import run;"
        "run(['dataset', 'prepare', 'data', 'ready', '--resolution', '64']);"
        "print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["ready", "ready-sheet.png", "[]"]

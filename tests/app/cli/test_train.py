"""`lorablend train` from the command line: every setting has an option, the same words, one line for each mistake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lorablend.adapters import load_adapter
from lorablend.train.config import load_config
from tests.train.data.data_files import save

Capture = pytest.CaptureFixture[str]


def run(arguments: list[str]) -> int:
    from lorablend.app.cli.commands import run as run_command_line

    return run_command_line(["train", *arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: photos/ with two pictures in it."""
    for number in range(2):
        save(tmp_path / "photos" / f"{number}.png", number, (64, 64), "a fox")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_dry_run(here: Path, sdxl_source: Path, capsys: Capture) -> None:
    """Everything that is left open is told; the same lines are a configuration."""
    (here / "set.toml").write_text('model = "owner/name"\nrank = 4\nlearning_rate = 0.001\n')
    arguments = ["photos", "--model", str(sdxl_source), "--out", "fox.safetensors", "--config", "set.toml"]
    assert run([*arguments, "--rank", "8", "--no-buckets", "--validation-prompts", "a fox", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    (here / "again.toml").write_text(out)
    config = load_config(here / "again.toml", {})
    assert (config.rank, config.learning_rate, config.buckets) == (8, 0.001, False)
    assert (config.steps, config.batch, config.accumulation, config.resolution) == (300, 4, 1, 64)
    assert config.alpha == 8
    assert config.validation_prompts == ("a fox",)
    assert "300 steps of 4 pictures: 4 at once; learning rate 0.001" in err.splitlines()
    assert sorted(path.name for path in here.iterdir()) == ["again.toml", "photos", "set.toml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos", "--out", "a.safetensors"], "model is missing; give it as a flag or in the TOML file"),
        (["photos", "--model", "m", "--out", "a.bin"], "out is 'a.bin'; give a name that ends in .safetensors"),
        (
            ["photos", "--model", "m/n", "--out", "a.safetensors", "--rank", "0"],
            "rank is 0: input should be greater than or equal to 1",
        ),
        (
            ["photo", "--model", "m/n", "--out", "a.safetensors"],
            "photo does not exist; give a folder of pictures",
        ),
        (
            ["photos", "--model", "m/n", "--out", "a.safetensors", "--resume"],
            "a.training has no checkpoint to resume from; start without --resume",
        ),
    ],
)
def test_mistakes(here: Path, capsys: Capture, arguments: list[str], message: str) -> None:
    assert run(arguments) == 1
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.slow
def test_train_and_stop(here: Path, sdxl_source: Path, capsys: Capture) -> None:
    """Ctrl-C in a process of its own; the command that it names, here, to the end."""
    arguments = ["photos", "--model", str(sdxl_source), "--out", "fox.safetensors", "--steps", "6", "--batch", "2"]
    arguments += ["--rank", "2", "--sample-every", "0", "--checkpoints", "1", "--precision", "f32", "--seed", "3"]
    program = "import sys; from lorablend.app.cli.commands import main; sys.argv[0] = 'lorablend'; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as child:
        assert child.stderr is not None
        lines: list[str] = []
        for line in child.stderr:
            lines.append(line)
            if line.startswith("step 1 of 6: "):
                break
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=120)
    assert child.returncode == 130, "".join(lines) + err
    assert out == ""
    told = err.splitlines()[-2]
    assert told.startswith("stopped after step ")
    command = told.partition("; go on with: ")[2].split()
    assert command[:2] == ["lorablend", "train"]
    capsys.readouterr()
    assert run(command[2:]) == 0
    out, err = capsys.readouterr()
    assert out == f"{here / 'fox.safetensors'}\n"
    assert any(line.startswith("resumed from step ") for line in err.splitlines())
    assert "step 6 of 6: loss " in err
    assert err.splitlines()[-1].startswith("6 steps in ")
    assert load_adapter(here / "fox.safetensors").metadata["ss_seed"] == "3"

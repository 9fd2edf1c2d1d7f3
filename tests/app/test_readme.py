"""Every line of the README that the shipped model can serve is run, in one folder, one after the other."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lorablend.app.cli.commands import run
from lorablend.app.pictures.png import read_png

ROOT = Path(__file__).parents[2]
NOT_HERE = re.compile(r"\bgenerate sdxl|\bhf:|\bsd_xl_base")  # what needs a large model, or the network

SHORTER = ("--steps 150", "--steps 15")  # what is learnt in how many steps, tests/train says


def lines() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text[text.index("## Any adapter file") : text.index("## Page and server")]
    blocks = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)
    return [line.replace(*SHORTER) for block in blocks for line in block.splitlines() if not NOT_HERE.search(line)]


@pytest.mark.slow
def test_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORABLEND_ADAPTERS", str(tmp_path / "library"))
    Path("shipped").symlink_to(ROOT / "shipped")
    commands = lines()
    assert len(commands) > 15
    assert any(SHORTER[1] in line for line in commands)
    for line in commands:
        if line.startswith("echo "):
            subprocess.run(line, shell=True, check=True)
            continue
        program, *arguments = shlex.split(line)
        if program == "python":
            subprocess.run([sys.executable, *arguments], check=True)
            continue
        assert program == "lorablend"
        code = run(arguments)
        out, err = capsys.readouterr()
        assert code == 0, f"{line}: {err}"
        assert "warning" not in err, f"{line}: {err}"
        if arguments[0] == "generate":
            record = read_png(Path(out.strip())).record
            assert record is not None
            assert record.model == "demo"

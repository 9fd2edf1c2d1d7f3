"""The programs that trained the demo model: a few steps of each, with a restart, up to a folder that draws."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lorablend.demo import train_model, train_vae
from lorablend.demo.judge import Judge
from lorablend.demo.make_model import make_model
from lorablend.demo.train_judge import main as train_judge
from lorablend.engine import Pipeline

pytestmark = pytest.mark.slow


def test_from_nothing_to_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_vae, "PICTURES", 20)
    monkeypatch.setattr(train_vae, "BATCH", 2)
    monkeypatch.setattr("sys.argv", ["train_vae", str(tmp_path), "--steps", "2"])
    train_vae.main()
    psnr = re.search(r"PSNR: plain (\d+\.\d), pixel (\d+\.\d)", capsys.readouterr().out)
    assert psnr
    assert float(psnr[1]) > 0

    monkeypatch.setattr(train_model, "PICTURES", {128: 20, 256: 20})
    monkeypatch.setattr(train_model, "BATCH", {128: 2, 256: 2})
    monkeypatch.setattr(train_model, "SAMPLES", 2)
    monkeypatch.setattr(train_model, "SAMPLE_STEPS", 2)
    for until in ("1", "3"):
        monkeypatch.setattr("sys.argv", ["train_model", str(tmp_path), "--sizes", "128", "256", "--until", until])
        train_model.main()
        assert (tmp_path / f"samples-{until}.png").exists()

    make_model(tmp_path / "model", tmp_path / "converted")
    assert Pipeline(tmp_path / "converted").generate("a red boat", steps=1, seed=1).images[0].size == (256, 256)


def test_judge(tmp_path: Path) -> None:
    train_judge([str(tmp_path / "judge.safetensors"), "--steps", "2", "--pictures", "40", "--work", str(tmp_path)])
    assert Judge.load(tmp_path / "judge.safetensors")

"""Scores by the judge: of drawings, which are right by construction, and of what a model draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lorablend.demo import score
from lorablend.demo.drawing import draw
from lorablend.demo.judge import Judge
from lorablend.demo.make_adapters import ADAPTERS, train_adapter
from lorablend.demo.pictures import held_out_scenes
from lorablend.demo.score import accuracy, draw_and_read, share_of
from lorablend.engine import Pipeline
from lorablend.shipped import adapters_dir


def test_drawings_score_full_marks_and_wrong_ones_none() -> None:
    scenes = held_out_scenes(12, seed=1)
    verdicts = Judge.load().read([draw(scene, i, 128, "mosaic") for i, scene in enumerate(scenes)])
    assert min(accuracy(verdicts, scenes).values()) > 0.9
    assert share_of(verdicts, "style", "mosaic") > 0.9
    assert share_of(verdicts, "style", "pixel") == 0
    elsewhere = [replace(scene, position="left" if scene.position == "right" else "right") for scene in scenes]
    scores = accuracy(verdicts, elsewhere)
    assert scores["position"] < 0.1 < 0.9 < scores["object"]


def test_weight_0_is_the_model_alone() -> None:
    pipeline, judge = Pipeline("demo"), Judge.load()
    alone, off, on = (
        draw_and_read(pipeline, judge, ["a red car"], blend, steps=2)
        for blend in ([], [("chalk", 0.0)], [("chalk", 1.0)])
    )
    assert alone == off != on


@pytest.mark.slow
def test_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("glass", "neon", "robot"):
        (tmp_path / f"{name}.safetensors").write_bytes((adapters_dir() / f"{name}.safetensors").read_bytes())
    monkeypatch.setattr("sys.argv", ["score", "--count", "2", "--of-each", "1", "--adapters", str(tmp_path)])
    score.main()
    base, adapters, blends = (table.splitlines() for table in capsys.readouterr().out.strip().split("\n\n"))
    assert [len(base), len(adapters), len(blends)] == [3, 5, 4]  # two lines of heading; robot is not a style
    assert [line.split(" |")[0] for line in adapters[2:]] == ["| glass", "| neon", "| robot"]
    assert blends[2].startswith("| glass, neon |")


@pytest.mark.slow
def test_adapter_is_trained(tmp_path: Path) -> None:
    file = train_adapter("comic", tmp_path, steps=2, batch=1)
    assert file.stat().st_size < 1e6
    assert len(list((tmp_path / "comic").glob("*.png"))) == 40
    assert len(ADAPTERS) == 10

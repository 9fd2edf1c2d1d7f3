"""`lorablend bake` says where OpenVINO GenAI will not draw with the model's own scheduler."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lorablend.app.cli.commands import run
from lorablend.shipped import adapters_dir, model_dir


def test_a_scheduler_that_genai_does_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(model_dir(), tmp_path / "model")
    file = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text()) | {
        "_class_name": "DPMSolverMultistepScheduler",
        "timestep_spacing": "linspace",
    }
    file.write_text(json.dumps(config))
    (adapter, *_) = sorted(adapters_dir().glob("*.safetensors"))
    assert run(["bake", str(tmp_path / "model"), str(tmp_path / "baked"), "--lora", f"{adapter}:0.5"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "note: OpenVINO GenAI has no DPMSolverMultistepScheduler: EulerDiscreteScheduler takes its place, which needs "
        "more steps for the same picture"
    )
    assert lines[1].startswith("baked in ")
    assert len(lines) == 2

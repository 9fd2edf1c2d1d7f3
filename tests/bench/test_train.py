"""The benchmark of training runs from end to end at toy size, where its figures mean nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_kind_is_measured() -> None:
    command = ["--tiny", "--pixels", "64", "--steps", "2", "--variants", "ours-checkpointing", "diffusers", "same"]
    run = subprocess.run(
        [sys.executable, "-m", "bench.train", *command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows = re.findall(r"^\| (.+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", run.stdout, re.MULTILINE)
    assert [name for name, *_ in rows] == [
        "lorablend, gradient checkpointing",
        "diffusers' script",
        "diffusers' loop, the same work as lorablend",
    ]
    for name, median, fastest, peak in rows:
        assert 0 < float(fastest) <= float(median), name
        assert float(peak) > 0, name

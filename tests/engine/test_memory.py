"""Memory after many pictures, on a machine that is busy with other work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_PICTURES, _WARM = 60, 20
_MOST = 10  # MB; tasks that piled up for TBB's threads took 2 MB per picture (see LiveRuntime)

# Runs in a process of its own, and prints the resident MB after each picture.
_DRAW = """
import json, sys, psutil
from lorablend.engine import Pipeline
pipeline, blend = Pipeline("demo"), json.loads(sys.argv[1])
for seed in range(int(sys.argv[2])):
    pipeline.generate("a red boat", blend=blend, steps=2, width=64, height=64, seed=seed)
    print(psutil.Process().memory_info().rss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "items",
    [[{"adapter": "comic"}], [{"adapter": "comic", "mask": [0, 0, 0.5, 1]}, {"adapter": "riso"}]],
    ids=["plain", "masked"],
)
def test_nothing_piles_up_on_a_busy_machine(items: list[object]) -> None:
    with _busy_machine():
        drawn = subprocess.run(
            [sys.executable, "-c", _DRAW, json.dumps({"items": items}), str(_PICTURES)],
            check=True,
            capture_output=True,
            text=True,
        )
    resident = [float(line) for line in drawn.stdout.split()]
    assert len(resident) == _PICTURES
    assert resident[-1] - resident[_WARM] < _MOST


@contextmanager
def _busy_machine() -> Iterator[None]:
    """Run two more busy processes than there are cores."""
    count = (os.cpu_count() or 1) + 2
    busy = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(10**6))"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()

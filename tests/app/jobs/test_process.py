"""A long job in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from lorablend.adapters.errors import Cancelled, LorablendError
from lorablend.app.jobs.jobs import JobProgress
from lorablend.app.jobs.process import run_child

# A server that starts a child, which works for as long as it may, and says its number.
_SERVER = """
import sys
from pathlib import Path
from lorablend.app.jobs.process import run_child
from lorablend.app.jobs.jobs import JobProgress
run_child(sys.argv[2:], Path(sys.argv[1]), lambda progress: True, lambda said: JobProgress(step=0, steps=1))
"""


def look(said: Sequence[str]) -> JobProgress:
    return JobProgress(step=len(said), steps=10, text=said[-1] if said else "")


def test_what_it_printed_is_the_result(tmp_path: Path) -> None:
    printed = run_child(["--version"], tmp_path / "lock", lambda _: True, look)
    assert len(printed) == 1
    assert printed[0].startswith("lorablend ")


def test_its_error_is_the_reason(tmp_path: Path) -> None:
    with pytest.raises(LorablendError, match=r"nowhere.*lorablend convert"):
        run_child(["generate", str(tmp_path / "nowhere"), "a fox"], tmp_path / "lock", lambda _: True, look)


def test_it_stops_as_after_ctrl_c(tmp_path: Path) -> None:
    reports: list[JobProgress] = []

    def report(progress: JobProgress) -> bool:
        reports.append(progress)
        return len(reports) < 8

    with pytest.raises(Cancelled):
        run_child(["serve", "demo", "--data", str(tmp_path / "data")], tmp_path / "lock", report, look)
    assert len(reports) == 8


def test_it_ends_with_its_server(tmp_path: Path) -> None:
    """After kill -9 of the server, the next child of the same lock gets its turn."""
    data = tmp_path / "data"
    arguments = [str(tmp_path / "lock"), "serve", "demo", "--data", str(data)]
    server = subprocess.Popen([sys.executable, "-c", _SERVER, *arguments])
    deadline = time.monotonic() + 60
    while not (data / "jobs.sqlite").exists():
        assert time.monotonic() < deadline, "the child did not start"
        time.sleep(0.1)
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    assert run_child(["--version"], tmp_path / "lock", lambda _: time.monotonic() < deadline + 60, look)

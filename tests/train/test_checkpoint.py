"""Checkpoints: everything is restored bit for bit, and neither a full disk nor a kill damages an older one."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lorablend.adapters.errors import ResourceError, TrainError
from lorablend.train.checkpoint import Checkpoint, find_checkpoints, read_checkpoint, read_facts, write_checkpoint


def _checkpoint(step: int, size: int = 8) -> Checkpoint:
    state = {"weights": torch.full((size,), float(step))}
    return Checkpoint(step, {"rank": 4, "data": {"a.png": "0f"}}, state)


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """Let larger writes fail with EFBIG, as a full disk's do with ENOSPC; Python ignores the signal that comes too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_round_trip(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(2, 3)}, 1: {"d": 0.1 + 0.2}},
            "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0, 1], "fused": True, "foreach": None}],
        },
        "halves": torch.randn(5).to(torch.bfloat16),
        "steps": torch.tensor([1, 2**40]),
        "empty": {},
        "loss": float("inf"),
    }
    write_checkpoint(tmp_path, Checkpoint(12, {"seed": 2**62}, state), keep=3)
    (path,) = find_checkpoints(tmp_path)
    assert read_facts(path) == (12, {"seed": 2**62})
    got = read_checkpoint(path)
    assert got.step == 12
    _assert_same(got.state, state)


def _assert_same(got: Any, expected: Any) -> None:
    assert type(got) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
    elif isinstance(expected, dict):
        assert list(got) == list(expected)
        for key in expected:
            _assert_same(got[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            _assert_same(one, other)
    else:
        assert got == expected


def test_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 20, 100, 40):
        write_checkpoint(tmp_path, _checkpoint(step), keep=2)
    assert [read_facts(path)[0] for path in find_checkpoints(tmp_path)] == [40, 100]


def test_full_disk_keeps_the_last_good_one(tmp_path: Path) -> None:
    good = write_checkpoint(tmp_path, _checkpoint(10), keep=3)
    before = good.read_bytes()
    with _files_of_at_most(1 << 16), pytest.raises(ResourceError) as caught:
        write_checkpoint(tmp_path, _checkpoint(20, size=1 << 16), keep=3)
    assert str(caught.value) == (
        f"the checkpoint of step 20 could not be written to {tmp_path}: file too large; "
        f"the newest one is {good}; free up space, then resume"
    )
    assert [path.name for path in tmp_path.iterdir()] == [good.name]
    assert good.read_bytes() == before


def test_older_ones_make_room(tmp_path: Path) -> None:
    """All but the newest good one are deleted before the writer gives up."""
    for step in (10, 20, 30):
        write_checkpoint(tmp_path, _checkpoint(step), keep=3)
    with _files_of_at_most(1 << 16), pytest.raises(ResourceError, match="the newest one is"):
        write_checkpoint(tmp_path, _checkpoint(40, size=1 << 16), keep=3)
    assert [read_facts(path)[0] for path in find_checkpoints(tmp_path)] == [30]


def test_first_checkpoint_on_a_full_disk(tmp_path: Path) -> None:
    with _files_of_at_most(1 << 16), pytest.raises(ResourceError) as caught:
        write_checkpoint(tmp_path, _checkpoint(1, size=1 << 16), keep=3)
    assert str(caught.value).endswith("file too large; there is none before it; free up space, then resume")
    assert not list(tmp_path.iterdir())


def test_killed_while_writing(tmp_path: Path) -> None:
    """A write that was killed leaves the previous checkpoint as the newest; the next write deletes its remains."""
    write_checkpoint(tmp_path, _checkpoint(10), keep=3)
    code = (
        "import os, signal, sys, torch; from pathlib import Path; from lorablend.train import checkpoint as c; "
        "c.os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL); "  # after the bytes, before the name
        "c.write_checkpoint(Path(sys.argv[1]), c.Checkpoint(20, {}, {'a': torch.ones(9)}), keep=3)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    assert [read_facts(path)[0] for path in find_checkpoints(tmp_path)] == [10]
    write_checkpoint(tmp_path, _checkpoint(20), keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010.checkpoint", "step-00000020.checkpoint"]


@pytest.mark.parametrize("cut", [3, 100, -1])
def test_damaged(tmp_path: Path, cut: int) -> None:
    path = write_checkpoint(tmp_path, _checkpoint(10), keep=3)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(TrainError) as caught:
        read_facts(path)
    assert str(caught.value).startswith(f"{path} is damaged: ")
    assert str(caught.value).endswith("; delete it to continue from the one before")


def test_what_cannot_be_kept_is_a_bug_of_ours(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^a\.b is a set, which a checkpoint cannot hold$"):
        write_checkpoint(tmp_path, Checkpoint(1, {}, {"a": {"b": {1}}}), keep=1)

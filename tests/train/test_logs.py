"""The log of a run: every step once, even if the run broke off in between."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from PIL import Image

from lorablend.adapters.errors import ResourceError
from lorablend.train.logs import RunLog, read_log
from tests.adapter_files import message_of


def test_a_line_for_each_step(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run") as log:
        log.write(1, {"loss": 0.5, "note": "naïve"})
        assert len(list(read_log(tmp_path / "run"))) == 1  # on disk at once
        log.write(2, {"loss": float("nan"), "norm": float("-inf")})
    text = (tmp_path / "run" / "log.jsonl").read_text("utf-8")
    assert [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()] == [
        {"step": 1, "loss": 0.5, "note": "naïve"},
        {"step": 2, "loss": "nan", "norm": "-inf"},
    ]


def test_resuming_takes_out_what_is_done_again(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        for step in range(1, 6):
            log.write(step, {"loss": step / 10})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # a power failure
    with RunLog(tmp_path, step=3) as log:
        log.write(4, {"loss": 9.0})
    assert list(read_log(tmp_path)) == [
        {"step": 1, "loss": 0.1},
        {"step": 2, "loss": 0.2},
        {"step": 3, "loss": 0.3},
        {"step": 4, "loss": 9.0},
    ]
    with RunLog(tmp_path) as log:  # from the start again
        log.write(1, {"loss": 8.0})
    assert list(read_log(tmp_path)) == [{"step": 1, "loss": 8.0}]


def test_no_log_yet(tmp_path: Path) -> None:
    assert list(read_log(tmp_path)) == []


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    assert message_of(ResourceError, lambda: RunLog(tmp_path / "run")) == (
        f"{tmp_path}/run/log.jsonl could not be written: File exists"
    )


def test_a_full_disk(tmp_path: Path) -> None:
    """/dev/full accepts no byte, like a full disk."""

    def run() -> None:
        with RunLog(tmp_path) as log:
            log._file.close()
            log._file = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 - closed by the log
            log.write(1, {"loss": 1.0})

    assert message_of(ResourceError, run) == f"{tmp_path}/log.jsonl could not be written: No space left on device"


def test_pictures_are_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "samples-000010.png")
    with RunLog(tmp_path) as log:
        log.picture(10, "samples", tmp_path / "samples-000010.png")
    assert list(read_log(tmp_path)) == [{"step": 10, "samples": "samples-000010.png"}]


def test_tensorboard_has_the_same(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import (  # pyright: ignore[reportMissingImports]
        EventAccumulator,
    )

    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    with RunLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": step / 10})
        log.picture(3, "samples", tmp_path / "a.png")
    time.sleep(1.1)  # tensorboard orders its files by their names, which begin with the second
    with RunLog(tmp_path, step=2) as log:
        log.write(3, {"loss": 0.7})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = [(event.step, round(event.value, 6)) for event in events.Scalars("loss")]
    assert scalars == [(1, 0.1), (2, 0.2), (3, 0.7)]

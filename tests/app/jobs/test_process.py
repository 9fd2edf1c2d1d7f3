"""A long job in a process of its own: what it tells its server, and how it ends."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorablend.adapters import errors
from lorablend.adapters.errors import Cancelled, FaultError, ModelError, QueueFullError, RequestError
from lorablend.app.jobs.channel import Failure, Note, Stage, TrainStep, read_message
from lorablend.app.jobs.jobs import JobProgress
from lorablend.app.jobs.process import run_child
from lorablend.app.library.public import PUBLIC_ONLY
from tests.app.file_server import serving

BEGIN = JobProgress(step=0, steps=9, text="begin")
# A server that starts a child, which works for as long as it may.
_SERVER = """
import sys
from pathlib import Path
from lorablend.app.jobs.jobs import JobProgress
from lorablend.app.jobs.process import run_child
run_child(sys.argv[2:], Path(sys.argv[1]), lambda progress: True, JobProgress(step=0, steps=1), lambda message: None)
"""


def follow(message: Stage | TrainStep) -> JobProgress:
    assert isinstance(message, Stage)
    return JobProgress(step=message.done, steps=message.stages, text=message.stage)


def child(*arguments: object, lock: Path) -> list[str]:
    return run_child([str(argument) for argument in arguments], lock, lambda _: True, BEGIN, follow)


def test_what_it_printed_is_the_result(tmp_path: Path) -> None:
    printed = child("--version", lock=tmp_path / "lock")
    assert len(printed) == 1
    assert printed[0].startswith("lorablend ")


def test_its_error_is_raised_again(tmp_path: Path) -> None:
    """As the same class."""
    with pytest.raises(ModelError, match=r"nowhere.*lorablend convert") as caught:
        child("generate", tmp_path / "nowhere", "a fox", lock=tmp_path / "lock")
    assert type(caught.value) is ModelError


def test_its_downloads_are_the_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of a server that others use follows its Hub nowhere but to the public internet."""
    with serving() as inside, serving(redirects={"/api/models/owner/name": f"{inside.url}/info"}) as hub:
        settings = {PUBLIC_ONLY: "1", "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(RequestError, match="this server downloads from the public internet only"):
            child("convert", "owner/name", tmp_path / "out", lock=tmp_path / "lock")
        assert [path.partition("?")[0] for path, _ in hub.asked] == ["/api/models/owner/name"]
        assert not inside.asked


def test_a_child_that_cannot_read_its_command_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(FaultError) as caught:
        child("generate", "--nonsense", lock=tmp_path / "lock")
    assert str(caught.value).startswith("generate ended with code 1: error: no such option")
    assert "--nonsense" in caplog.text


def test_every_error_of_the_tree_crosses_the_channel() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        error = kind("the text", 7) if kind is QueueFullError else kind("the text", command="lorablend demo")
        again = read_message(Failure.of(error).model_dump_json())
        assert isinstance(again, Failure)
        copy = again.exception()
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_a_full_disk_crosses_the_channel() -> None:
    message = Failure.of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/b"))
    error = message.exception()
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror, error.filename) == (errno.ENOSPC, "No space left on device", "/a/b")


def test_what_else_is_told() -> None:
    for message in (Stage(stage="unet", done=1, stages=5), TrainStep(step=1, steps=2, loss=0.5, eta=3), Note(text="x")):
        assert read_message(message.model_dump_json()) == message
    with pytest.raises(ValueError, match="Input tag 'other' found"):
        read_message('{"kind": "other"}')


def test_it_stops_as_after_ctrl_c(tmp_path: Path) -> None:
    reports: list[JobProgress] = []

    def report(progress: JobProgress) -> bool:
        reports.append(progress)
        return len(reports) < 8

    with pytest.raises(Cancelled):
        run_child(["serve", "demo", "--data", str(tmp_path / "data")], tmp_path / "lock", report, BEGIN, follow)
    assert reports == [BEGIN] * 8


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
    in_time = lambda _: time.monotonic() < deadline + 60  # noqa: E731
    assert run_child(["--version"], tmp_path / "lock", in_time, BEGIN, follow)

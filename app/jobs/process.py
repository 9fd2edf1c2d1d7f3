"""A long job as a process of its own: `lorablend …`, which ends with the server, and whose memory goes with it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from lorablend.adapters.errors import Cancelled, FaultError
from lorablend.app.jobs.channel import Failure, Note, Stage, TrainStep, read_message
from lorablend.app.jobs.jobs import JobProgress
from lorablend.app.jobs.worker import Report

__all__ = ["run_child"]

_LOG = logging.getLogger(__name__)
_EVERY = 0.3  # seconds between two reports
_REMEMBERED = 200  # lines of its stderr, for the log if it crashes
_PATIENCE = 120.0  # seconds in which a child that is told to stop writes its checkpoint
_PROGRAM = "from lorablend.app.cli.child import main; main()"

Follow = Callable[[Stage | TrainStep], JobProgress]


def run_child(arguments: Sequence[str], lock: Path, report: Report, begin: JobProgress, follow: Follow) -> list[str]:
    """Run `lorablend` with these arguments to its end, and return the lines that it printed.

    Args:
        arguments: The command line.
        lock: A file. Of all children with the same lock one works at a time, even if the server that started another
            was killed.
        report: Takes the progress, several times a second.
        begin: The progress before the child has told anything.
        follow: From what the child tells to the progress of the job.

    Raises:
        Cancelled: `report` said that the job should end; the child has then ended as after Ctrl-C.
        LorablendError: What the child raised, as the same class; FaultError if it crashed.
        OSError: What the child raised.
    """
    readable, writable = os.pipe()
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(writable), str(lock), *arguments],
            stdin=subprocess.PIPE,  # closed when this process ends, however that happens
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[writable],
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C in the server's terminal is for the server
        )
    except BaseException:
        os.close(readable)
        raise
    finally:
        os.close(writable)
    assert child.stdout
    assert child.stderr
    heard = _Heard(arguments[0], begin, follow)
    printed: list[str] = []
    errors: deque[str] = deque(maxlen=_REMEMBERED)
    streams = (os.fdopen(readable, encoding="utf-8", errors="replace"), child.stdout, child.stderr)
    readers = [
        threading.Thread(target=_read, args=(stream, take), daemon=True)
        for stream, take in zip(streams, (heard.take, printed.append, errors.append), strict=True)
    ]
    for reader in readers:
        reader.start()
    try:
        stopped = _watch(child, heard, report)
    finally:
        _end(child)
        for reader in readers:
            reader.join()
        for stream in streams:
            stream.close()
    if child.returncode == 0:
        return printed
    if stopped:
        raise Cancelled("stopped")
    if heard.failure is not None:
        raise heard.failure.exception()
    _LOG.error("%s ended with code %d:\n%s", arguments[0], child.returncode, "\n".join(errors))
    last = errors[-1] if errors else "it printed nothing"
    raise FaultError(f"{arguments[0]} ended with code {child.returncode}: {last}")


class _Heard:
    """What the child has told so far: its progress, and the error that ended it."""

    def __init__(self, command: str, begin: JobProgress, follow: Follow) -> None:
        self._command, self.progress, self._follow = command, begin, follow
        self.failure: Failure | None = None

    def take(self, line: str) -> None:
        try:
            message = read_message(line)
        except ValueError:  # half a line of a child that was killed
            return
        if isinstance(message, Failure):
            self.failure = message
        elif isinstance(message, Note):
            _LOG.info("%s: %s", self._command, message.text)
        else:
            self.progress = self._follow(message)


def _watch(child: subprocess.Popen[str], heard: _Heard, report: Report) -> bool:
    """Report until the child ends; True if it was told to end."""
    while child.poll() is None:
        if not report(heard.progress):
            return True
        time.sleep(_EVERY)
    return False


def _end(child: subprocess.Popen[str]) -> None:
    """End the child as Ctrl-C does; by signals, if that is not enough.

    It sends itself the Ctrl-C when its stdin is closed: a signal sent while it starts would be lost.
    """
    assert child.stdin
    with suppress(OSError):
        child.stdin.close()
    for number, patience in ((None, _PATIENCE), (signal.SIGTERM, 5.0), (signal.SIGKILL, None)):
        if number and child.poll() is None:
            child.send_signal(number)
        try:
            child.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue


def _read(stream: TextIO, take: Callable[[str], object]) -> None:
    for line in stream:
        if line.strip():
            take(line.rstrip())

"""A long job as a process of its own: `lorablend …`, which ends with the server, and whose memory goes with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from lorablend.adapters.errors import Cancelled, LorablendError
from lorablend.app.jobs.jobs import JobProgress
from lorablend.app.jobs.worker import Report

__all__ = ["run_child"]

_EVERY = 0.3  # seconds between two looks
_REMEMBERED = 200  # lines of what it says
_PATIENCE = 120.0  # seconds in which a child that is told to stop writes its checkpoint
_PROGRAM = "from lorablend.app.cli.child import main; main()"


def run_child(
    arguments: Sequence[str], lock: Path, report: Report, look: Callable[[Sequence[str]], JobProgress]
) -> list[str]:
    """Run `lorablend` with these arguments to its end, and return the lines that it printed.

    lock: a file; of children with the same one, one at a time works, also where the server that started the other was
    killed. look: from the last lines that the child said on stderr to how far it is.

    Raises Cancelled where `report` says that the job shall end; the child has then ended as after Ctrl-C.
    LorablendError, with the child's own words, where it failed.
    """
    said: deque[str] = deque(maxlen=_REMEMBERED)
    printed: list[str] = []
    child = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(lock), *arguments],
        stdin=subprocess.PIPE,  # its end is the end of this process, however that comes
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # Ctrl-C in the server's terminal is the server's
    )
    assert child.stdout
    assert child.stderr
    readers = [
        threading.Thread(target=_read, args=(stream, lines), daemon=True)
        for stream, lines in ((child.stderr, said), (child.stdout, printed))
    ]
    for reader in readers:
        reader.start()
    try:
        stopped = _watch(child, said, report, look)
    finally:
        _end(child)
        for reader in readers:
            reader.join()
        child.stdout.close()
        child.stderr.close()
    if child.returncode == 0:
        return printed
    if stopped:
        raise Cancelled("stopped")
    errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    last = said[-1] if said else "it said nothing"
    raise LorablendError(errors[-1] if errors else f"{arguments[0]} ended with code {child.returncode}: {last}")


def _watch(
    child: subprocess.Popen[str], said: deque[str], report: Report, look: Callable[[Sequence[str]], JobProgress]
) -> bool:
    """Report until the child ends; True if it was told to."""
    while child.poll() is None:
        if not report(look(tuple(said))):
            return True
        time.sleep(_EVERY)
    return False


def _end(child: subprocess.Popen[str]) -> None:
    """As Ctrl-C does, which the child does to itself: a signal that is sent while it starts would be lost.

    For good, if that is not enough.
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


def _read(stream: IO[str], lines: deque[str] | list[str]) -> None:
    for line in stream:
        if line.strip():
            lines.append(line.rstrip())

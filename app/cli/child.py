"""The process of a long job: `lorablend …` as its server starts it, see `lorablend.app.jobs.process`."""

from __future__ import annotations

import os
import signal
import sys
import threading

from filelock import FileLock

__all__ = ["main"]


def main() -> None:
    """The child: waits for its turn, works, and stops when it is told to, or when the server is gone."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    from lorablend.app.cli.commands import run

    threading.Thread(target=_outlive_nobody, daemon=True).start()
    lock, *arguments = sys.argv[1:]
    with FileLock(lock):
        sys.exit(run(arguments))


def _outlive_nobody() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written; past Python's own buffer, whose lock outlives a thread
    os.kill(os.getpid(), signal.SIGINT)

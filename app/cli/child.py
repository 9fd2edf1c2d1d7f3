"""The process of a long job: `lorablend …` as its server starts it, see `lorablend.app.jobs.process`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from filelock import FileLock

from lorablend.adapters.errors import LorablendError
from lorablend.app.jobs.channel import Failure, open_channel, tell

__all__ = ["main"]

_PATIENCE = 130.0  # seconds in which a training writes its checkpoint; a server that is still there waits less


def main() -> None:
    """Wait for the lock, work, and stop when the server closes stdin, or is gone.

    The arguments: the descriptor for messages, the lock, and a command line.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    from lorablend.app.cli.commands import run
    from lorablend.app.library.public import PUBLIC_ONLY, guard_hub

    if os.environ.get(PUBLIC_ONLY):
        guard_hub()
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    descriptor, lock, *arguments = sys.argv[1:]
    os.set_inheritable(int(descriptor), False)
    open_channel(int(descriptor))
    with FileLock(lock):
        sys.exit(run(arguments, failed=_tell_failure))


def _tell_failure(error: Exception) -> None:
    if isinstance(error, LorablendError | OSError):
        tell(Failure.of(error))


def _end_with_the_server() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written; not through Python's buffer, whose lock outlives a thread
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_PATIENCE)
    os._exit(130)  # the server is gone, so nobody else would end it

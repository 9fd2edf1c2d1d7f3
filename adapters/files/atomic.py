"""Files and folders that appear whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["atomic_write", "part_of"]


def part_of(target: Path) -> Path:
    """Return a new, hidden path next to `target`, for something that will replace it in one step."""
    # Shortened, so that a name which the file system just accepts does not get too long.
    return target.with_name(f".{target.name[:50]}.{uuid.uuid4().hex}.part")


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a path to write a file to, or to make a folder at; it replaces `target` when the block ends.

    A file may replace an older one; a folder cannot replace one that has files in it. After any exception, `target` is
    unchanged and what the block wrote is deleted.

    Args:
        target: The path of the finished file or folder.

    Yields:
        A path in the same folder, where nothing exists yet.

    Raises:
        OSError: The system's, such as for a full disk; the caller explains it to the user.
    """
    part = part_of(target)
    try:
        yield part
        os.replace(part, target)
    finally:
        with suppress(OSError):
            shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)

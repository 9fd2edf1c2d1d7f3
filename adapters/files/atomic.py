"""Files and folders that appear whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["atomic_write", "part_of"]


def part_of(target: Path) -> Path:
    """A new, hidden path beside `target`, for something that takes its place in one step."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Write a file, or fill a folder, at the path that this gives; it takes `target`'s place when the block ends.

    A file replaces an older one; a folder must be new or empty. After any exception, `target` is what it was, and what
    the block wrote is gone. OSError, such as for a full disk, is the caller's to explain.
    """
    part = part_of(target)
    try:
        yield part
        os.replace(part, target)
    finally:
        with suppress(OSError):
            shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)

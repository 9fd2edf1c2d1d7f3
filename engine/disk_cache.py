"""Keeps a folder of things that can be made again from filling the disk."""

import os
import shutil
from pathlib import Path

__all__ = ["make_room"]


def make_room(root: Path, keep: Path | None = None) -> None:
    """Remove the oldest children of `root`, `keep` spared, until it takes at most half of what is free without it.

    Old is by the time of change, so whoever uses a folder here touches it.
    """
    units = sorted((path for path in root.iterdir() if path != keep), key=lambda path: path.stat().st_mtime)
    sizes = {path: _size(path) for path in [*units, *([keep] if keep else [])]}
    total = sum(sizes.values())
    limit = (shutil.disk_usage(root).free + total) / 2
    for path in units:
        if total <= limit:
            break
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        total -= sizes[path]


def _size(path: Path) -> int:
    """Bytes that removing it would give back; hard links to files elsewhere give nothing."""
    files = [path] if path.is_file() else [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    stats = [file.stat() for file in files]
    return sum(stat.st_size for stat in stats if stat.st_nlink == 1)

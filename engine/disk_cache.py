"""Keeps a folder of things that can be made again from filling the disk."""

import os
import shutil
from pathlib import Path

import platformdirs

__all__ = ["default_cache_dir", "make_room"]


def make_room(root: Path, keep: Path | None = None) -> None:
    """Remove the oldest children of `root`, `keep` spared, until it takes at most half of what is free without it.

    Old is by the time of change, so whoever uses a folder here touches it. Other programs may remove files meanwhile.
    """
    ages = [(stat.st_mtime, path) for path in root.iterdir() if path != keep and (stat := _stat(path))]
    sizes = {path: _size(path) for path in [*(path for _, path in ages), *([keep] if keep else [])]}
    total = sum(sizes.values())
    limit = (shutil.disk_usage(root).free + total) / 2
    for _, path in sorted(ages):
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
    return sum(stat.st_size for file in files if (stat := _stat(file)) and stat.st_nlink == 1)


def _stat(path: Path) -> os.stat_result | None:
    """None where it has gone."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def default_cache_dir() -> Path:
    """Where compiled models and baked blends are kept: $LORABLEND_CACHE, else the user's own cache folder."""
    return Path(os.environ.get("LORABLEND_CACHE") or platformdirs.user_cache_dir("lorablend"))

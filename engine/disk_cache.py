"""Keep a folder of reproducible files from filling the disk."""

import os
import shutil
from pathlib import Path

import platformdirs

__all__ = ["default_cache_dir", "make_room"]


def make_room(root: Path, keep: Path | None = None) -> None:
    """Remove the oldest children of `root` until it takes at most half of the space that would be free without it.

    `keep` is not removed. Age is by modification time, so code that uses a child must touch it. Other processes may
    remove files at the same time.
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
    """The bytes that removing it would free; hard links to files elsewhere free nothing."""
    files = [path] if path.is_file() else [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    return sum(stat.st_size for file in files if (stat := _stat(file)) and stat.st_nlink == 1)


def _stat(path: Path) -> os.stat_result | None:
    """None if it no longer exists."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def default_cache_dir() -> Path:
    """The folder for compiled models and baked blends: $LORABLEND_CACHE, or the user's cache folder."""
    return Path(os.environ.get("LORABLEND_CACHE") or platformdirs.user_cache_dir("lorablend"))

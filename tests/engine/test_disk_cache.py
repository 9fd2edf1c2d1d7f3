"""Room on the disk; test_genai.py tests which entry goes first."""

from __future__ import annotations

from pathlib import Path

from lorablend.engine.disk_cache import make_room


def test_files_that_another_process_removed(tmp_path: Path) -> None:
    """Such a file is listed but does not exist, like a dangling link."""
    (tmp_path / "folder").mkdir()
    for link in (tmp_path / "file", tmp_path / "folder" / "file"):
        link.symlink_to(tmp_path / "gone")
    make_room(tmp_path)
    make_room(tmp_path, keep=tmp_path / "folder")

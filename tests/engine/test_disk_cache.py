"""Room on the disk; what goes first is in test_genai.py."""

from __future__ import annotations

from pathlib import Path

from lorablend.engine.disk_cache import make_room


def test_what_another_program_has_removed_meanwhile(tmp_path: Path) -> None:
    """Listed and not there: here a link to nothing."""
    (tmp_path / "folder").mkdir()
    for link in (tmp_path / "file", tmp_path / "folder" / "file"):
        link.symlink_to(tmp_path / "gone")
    make_room(tmp_path)
    make_room(tmp_path, keep=tmp_path / "folder")

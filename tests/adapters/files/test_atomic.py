"""Files and folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorablend.adapters.files.atomic import atomic_write


def test_a_file_replaces_an_older_one(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_write(target) as part:
        part.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_appears_at_once(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with atomic_write(target) as part:
        part.mkdir()
        (part / "inside").write_text("x")
        assert not target.exists()
    assert (target / "inside").read_text() == "x"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt(), ValueError("bad")])
@pytest.mark.parametrize("folder", [False, True])
def test_nothing_half_written_stays(tmp_path: Path, error: BaseException, folder: bool) -> None:
    def write_half() -> None:
        with atomic_write(tmp_path / "a") as part:
            if folder:
                part.mkdir()
            (part / "inside" if folder else part).write_text("half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_full_folder_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "kept").write_text("x")
    with pytest.raises(OSError, match="not empty"), atomic_write(target) as part:
        part.mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "kept"]

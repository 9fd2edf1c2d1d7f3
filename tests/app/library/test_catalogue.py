"""A library and a plain folder are looked at again only where they changed, and show nothing that is out of date."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lorablend.app.library.library import Library
from lorablend.app.library.shelf import Shelf
from lorablend.app.library.walk import walk
from tests.app.library.library_files import PNG, write


def settle(folder: Path) -> None:
    """As if nothing had changed for long; a folder that has changed just now is always looked at."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and ".lorablend" not in path.parts:
            os.utime(path, (1e9, 1e9))


@pytest.fixture(params=["library", "plain folder"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    write(tmp_path, "ink", metadata={"modelspec.title": "Ink"})
    write(tmp_path, "styles/neon")
    write(tmp_path, "styles/Ink two")
    if request.param == "library":
        Library(tmp_path)
    settle(tmp_path)
    shelf = Shelf(tmp_path)
    assert shelf.names() == ["ink", "styles/Ink two", "styles/neon"]
    return shelf


def test_files_that_come_and_go_and_change_their_names(shelf: Shelf, tmp_path: Path) -> None:
    write(tmp_path, "new")
    assert shelf.names() == ["ink", "new", "styles/Ink two", "styles/neon"]
    (tmp_path / "styles/neon.safetensors").rename(tmp_path / "styles/glow.safetensors")
    assert shelf.names() == ["ink", "new", "styles/glow", "styles/Ink two"]
    assert shelf.get("neon") is None
    (tmp_path / "new.safetensors").unlink()
    assert shelf.names() == ["ink", "styles/glow", "styles/Ink two"]
    write(tmp_path, "deep/er/one")
    assert "deep/er/one" in shelf.names()


def test_a_file_that_is_rewritten_in_place(shelf: Shelf, tmp_path: Path) -> None:
    """Its folder does not tell; whoever asks for this adapter, or for all, gets the new facts."""
    for title, ask in (
        ("One", lambda: shelf.get("ink")),
        ("Two", lambda: next(entry for entry in shelf.entries() if entry.name == "ink")),
    ):
        write(tmp_path, "ink", metadata={"modelspec.title": title, "padding": title * 9})
        settle(tmp_path)
        entry = ask()
        assert entry is not None
        assert entry.title == title


def test_names(shelf: Shelf, tmp_path: Path) -> None:
    for name, found in {"ink": "ink", "neon": "styles/neon", "styles/neon": "styles/neon", "Ink": None}.items():
        entry = shelf.get(name)
        assert (entry and entry.name) == found
    write(tmp_path, "other/neon")
    assert shelf.get("neon") is None  # two have that name


def test_a_picture_that_is_added(shelf: Shelf, tmp_path: Path) -> None:
    entry = shelf.get("ink")
    assert entry is not None
    assert shelf.preview(entry) == ""
    (tmp_path / "ink.png").write_bytes(PNG)
    entry = shelf.get("ink")
    assert entry is not None
    assert shelf.preview(entry).startswith("data:image/png;base64,")


def test_marks_of_another_program(tmp_path: Path) -> None:
    write(tmp_path, "ink")
    shelf = Shelf(tmp_path)
    other = Library(tmp_path)
    other.scan()
    entry = shelf.get("ink")
    assert entry is not None
    assert not entry.favourite
    other.set_favourite("ink")
    entry = shelf.get("ink")
    assert entry is not None
    assert entry.favourite


def test_what_a_walk_remembers(tmp_path: Path) -> None:
    write(tmp_path, "styles/neon")
    assert walk(tmp_path).has_changed  # it may change once more within the clock of the disk
    settle(tmp_path)
    walked = walk(tmp_path)
    assert not walked.has_changed
    (tmp_path / "styles/readme.txt").touch()
    assert walked.has_changed

"""Tags, favourites and last use follow the file, and are never overwritten."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError, RequestError
from lorablend.app.library.library import Library
from tests.adapter_files import message_of
from tests.app.library.library_files import headers_read


def test_marks(library: Library) -> None:
    library.set_tags("ink", ["  Drawing ", "black & white", "Drawing"])
    library.set_favourite("ink")
    library.note_used([load_adapter(library.get("ink").path)])
    ink = library.get("ink")
    assert (ink.tags, ink.favourite) == (("Drawing", "black & white"), True)
    assert ink.last_used
    assert ink.last_used.endswith("+00:00")
    assert library.set_favourite("ink", False).favourite is False
    assert library.set_tags("ink", ()).tags == ()
    assert library.get("ink").last_used == ink.last_used


@pytest.mark.parametrize("tag", ["", "  ", "two\nlines", "x" * 101])
def test_tags_that_are_none(tag: str, library: Library) -> None:
    message = message_of(RequestError, lambda: library.set_tags("ink", [tag]))
    assert message.endswith(": give 1 to 100 characters on one line")
    assert library.get("ink").tags == ()


def test_marks_go_with_the_file(library: Library, folder: Path) -> None:
    """A file that is moved, renamed, copied, or brought back later keeps its marks."""
    library.set_tags("ink", ["drawing"])
    os.replace(folder / "ink.safetensors", folder / "styles" / "brush.safetensors")
    assert headers_read(library) == 0
    assert library.get("brush").tags == ("drawing",)  # at once: it is the same file
    content = (folder / "styles" / "brush.safetensors").read_bytes()
    (folder / "styles" / "brush.safetensors").unlink()
    library.scan()
    (folder / "again.safetensors").write_bytes(content)
    assert headers_read(library) == 1
    assert library.get("again").tags == ()
    library.hash_files()
    assert library.get("again").tags == ("drawing",)


@pytest.mark.parametrize("damage", ["delete", "garbage", "truncate", "version", "empty table"])
def test_the_index_is_made_again(damage: str, library: Library, folder: Path) -> None:
    library.hash_files()
    library.set_tags("ink", ["drawing"])
    before = library.entries()
    path = folder / ".lorablend" / "index.sqlite"
    if damage == "delete":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(b"garbage" * 1000)
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 99" if damage == "version" else "DROP TABLE files")
        db.commit()
        db.close()
    for again in (library, Library(folder)):
        again.scan()
        again.hash_files()
        assert again.entries() == before


def test_broken_marks_are_not_written_over(library: Library, folder: Path) -> None:
    library.set_favourite("ink")
    path = folder / ".lorablend" / "marks.json"
    path.write_text("{")
    ink = load_adapter(folder / "ink.safetensors")
    for act in (library.entries, lambda: library.set_favourite("ink"), lambda: library.note_used([ink])):
        message = message_of(AdapterError, act)
        assert message.startswith(f"{path}: cannot be read as marks (")
        assert message.endswith("; fix it or move it away")
    assert path.read_text() == "{"
    path.write_text('{"version": 2, "adapters": {}}')
    assert message_of(AdapterError, library.entries) == f"{path}: version 2, this lorablend reads 1; use a newer one"


def test_where_nothing_can_be_written(folder: Path) -> None:
    """A file in place of the hidden folder is like a read-only disk, but works for root too."""
    (folder / ".lorablend").write_text("")
    library = Library(folder)
    library.scan()
    library.hash_files()
    assert library.get("ink").sha256
    refused = f"{folder / '.lorablend'} cannot be written to; use a folder of adapters that you may write to"
    assert message_of(AdapterError, lambda: library.set_favourite("ink")) == refused
    assert message_of(AdapterError, lambda: library.remove("ink")) == refused
    assert message_of(AdapterError, lambda: library.add(folder / "ink.safetensors")) == refused

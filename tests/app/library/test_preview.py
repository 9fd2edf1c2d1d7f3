"""The pictures of adapters, from a file next to them or from their metadata."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from lorablend.app.library.library import Library
from tests.app.library.library_files import PNG, headers_read, write


@pytest.mark.parametrize("name", ["ink.png", "ink.preview.png", "ink.jpg", "ink.webp", "ink.jpeg"])
def test_a_picture_beside_the_file(name: str, library: Library, folder: Path) -> None:
    assert not library.get("ink").preview
    (folder / name).write_bytes(PNG)
    assert headers_read(library) == 0
    assert library.get("ink").preview
    preview = library.preview("ink")
    assert preview
    assert (preview.content, preview.media_type) == (PNG, "image/png")
    (folder / name).write_text("<svg onload='alert(1)'/>")
    assert library.preview("ink") is None
    (folder / name).unlink()
    library.scan()
    assert not library.get("ink").preview


@pytest.mark.parametrize(("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
def test_a_thumbnail_in_the_metadata(kind: str, media_type: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    address = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    write(tmp_path, "ink", metadata={"modelspec.thumbnail": address})
    library = Library(tmp_path)
    library.scan()
    assert library.get("ink").preview
    preview = library.preview("ink")
    assert preview
    assert (preview.content, preview.media_type) == (buffer.getvalue(), media_type)


@pytest.mark.parametrize(
    "address",
    [
        "https://example.com/x.png",
        "data:image/png,abc",
        "data:image/png;base64,####",
        "data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode(),
        "",
        "é;base64,é",
    ],
)
def test_a_thumbnail_that_is_no_picture(address: str, tmp_path: Path) -> None:
    write(tmp_path, "ink", metadata={"modelspec.thumbnail": address})
    library = Library(tmp_path)
    library.scan()
    assert library.preview("ink") is None

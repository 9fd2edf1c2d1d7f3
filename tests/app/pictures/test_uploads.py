"""Uploads: how they are stored, and for how long."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorablend.adapters.errors import RequestError
from lorablend.app.pictures.png import open_picture
from lorablend.app.pictures.uploads import MAX_PIXELS, Uploads, opened
from lorablend.app.work.sets_add import keep
from lorablend.engine.pixel_budget import BUDGET, decoding
from lorablend.train.data.examples import Example
from lorablend.train.data.pictures import load_upright, measure

WEEK = 7 * 86_400


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_greys_of_16_bits_keep_their_brightness(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    levels = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    kept = uploads.open(uploads.keep(png(Image.fromarray(levels))))
    assert kept.mode == "L"
    assert np.abs(np.asarray(kept) - levels / 257).max() <= 0.5


def test_old_ones_are_deleted(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    old, used, again, new = (
        uploads.keep(png(Image.new("RGB", (8, 8), color))) for color in ("red", "green", "blue", "white")
    )
    for name in (old, used, again):
        os.utime(uploads.path(name), (0.0, time.time() - WEEK - 60))
    assert uploads.keep(png(Image.new("RGB", (8, 8), "blue"))) == again
    uploads.drop_old(lambda: f'[{{"image": "{used}"}}]')
    for name in (used, again, new):
        assert uploads.open(name).size == (8, 8)
    with pytest.raises(RequestError, match="upload it again"):
        uploads.path(old)


def test_a_full_disk_is_not_made_fuller(tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]) -> None:
    uploads = Uploads(tmp_path)
    with full_disk(), pytest.raises(OSError, match="File too large"):
        uploads.keep(png(Image.new("RGB", (8, 8))))
    assert list(tmp_path.iterdir()) == []


def test_every_decode_waits_for_its_pixels(tmp_path: Path) -> None:
    """Of all that decodes pictures which somebody sent, none begins while others hold the whole budget."""
    uploads = Uploads(tmp_path / "uploads")
    content = png(Image.new("RGB", (8, 8)))
    name, path = uploads.keep(content), tmp_path / "a.png"
    path.write_bytes(content)
    example = Example(path=path, captions=("a fox",), repeats=1, size=(8, 8), mask=None)

    def read() -> None:
        with opened(path):
            pass

    acts: dict[str, Callable[[], object]] = {
        "keep": lambda: uploads.keep(content),
        "open": lambda: uploads.open(name),
        "read": read,
        "gallery": lambda: open_picture(path),
        "measure": lambda: measure(path, "a.png"),
        "load": lambda: load_upright(path),
        "data set": lambda: keep(example, tmp_path / "kept"),
    }
    done: set[str] = set()

    def act(name: str) -> None:
        acts[name]()
        done.add(name)

    threads = [threading.Thread(target=act, args=(name,)) for name in acts]
    with decoding(BUDGET):
        for thread in threads:
            thread.start()
        threads[0].join(0.2)
        assert done == set()
    for thread in threads:
        thread.join(10)
    assert done == set(acts)


def test_too_many_pixels(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    with pytest.raises(RequestError) as caught:
        uploads.keep(png(Image.new("1", (4096, 4097))))
    text = f"the picture has 4096 × 4097 pixels, more than {MAX_PIXELS:,}; give a smaller one"
    assert str(caught.value) == text

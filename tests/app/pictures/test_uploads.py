"""Uploads: how they are stored, and for how long."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorablend.adapters.errors import RequestError
from lorablend.app.pictures.uploads import Uploads

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

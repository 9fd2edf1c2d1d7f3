"""Masks from picture files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorablend.adapters.errors import BlendError
from lorablend.engine.mask import open_mask


@pytest.mark.parametrize(
    ("pixels", "greys"),
    [
        (np.array([[0, 128, 255]], np.uint8), [[0, 128 / 255, 1]]),
        (np.array([[0, 300, 32768, 65535]], np.uint16), [[0, 300 / 65535, 32768 / 65535, 1]]),
        (np.array([[[0, 0, 0], [128, 128, 128], [255, 255, 255]]], np.uint8), [[0, 128 / 255, 1]]),
    ],
    ids=["8 bits", "16 bits", "colours"],
)
def test_greys(tmp_path: Path, pixels: np.ndarray, greys: list[list[float]]) -> None:
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    np.testing.assert_allclose(open_mask(tmp_path / "mask.png"), greys, atol=1e-6)


@pytest.mark.parametrize("content", [b"no picture", None])
def test_no_picture(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mask.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BlendError) as caught:
        open_mask(path)
    assert str(caught.value).startswith(f"mask {path} cannot be read as a picture: ")

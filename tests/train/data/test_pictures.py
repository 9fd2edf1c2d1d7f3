"""Pictures and masks of every kind, and their problems."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorablend.train.data.buckets import assign
from lorablend.train.data.layouts import find_examples
from lorablend.train.data.pictures import load_mask, load_picture, load_upright
from tests.train.data.data_files import clean, pattern, save


def test_exif_rotation(data: Path) -> None:
    image = pattern(1, (96, 64))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise by 90°
    image.save(data / "a.png", exif=exif)
    (example,) = clean(find_examples(data)).examples
    assert example.size == (64, 96)
    (crop,) = assign([example.size], 96, 32, buckets=False)
    shown_upright = image.transpose(Image.Transpose.ROTATE_270)
    expected = np.asarray(shown_upright.resize(crop.scaled, Image.Resampling.LANCZOS), int)[24:120, :96]
    assert np.array_equal(load_picture(example.path, crop), expected)
    assert np.array_equal(load_picture(example.path, crop, flip=True), expected[:, ::-1])


def test_alpha_is_put_on_white(data: Path) -> None:
    image = pattern(1, (64, 64)).convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat(np.uint8([[0, 255]]), 32, 1).repeat(64, 0)))
    image.save(data / "a.png")
    dataset = clean(find_examples(data, trigger="x"))
    assert "1 picture with transparent parts, placed on white" in dataset.notes
    pixels = load_picture(data / "a.png", assign([(64, 64)], 64, 32)[0])
    assert (pixels[:, :28] == 255).all()
    assert np.array_equal(pixels[:, 36:], np.asarray(image.convert("RGB"))[:, 36:])


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "I;16"])
def test_modes(data: Path, mode: str) -> None:
    grey = pattern(1, (64, 64)).convert("L")
    image = Image.fromarray(np.asarray(grey, np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    image.save(data / "a.tif")
    (example,) = clean(find_examples(data)).examples
    pixels = load_picture(example.path, assign([example.size], 64, 32)[0])
    assert pixels.shape == (64, 64, 3)
    if mode != "1":
        assert np.abs(pixels.astype(int) - np.asarray(grey, int)[..., None]).max() <= 2  # a palette of greys


def test_masks(data: Path) -> None:
    save(data / "a.png", 1, (64, 32), caption="x")
    save(data / "b.png", 2, (64, 32), caption="x")
    half = np.zeros((32, 64), np.uint8)
    half[:, 32:] = 255
    Image.fromarray(half).save(data / "a-masklabel.png")
    Image.fromarray(half).save(data / "gone-masklabel.png")
    dataset = clean(find_examples(data))
    assert [example.mask for example in dataset.examples] == [data / "a-masklabel.png", None]
    assert dataset.layout == "a folder of pictures; 2 pictures; captions: 2 from .txt files; 1 mask"
    assert dataset.notes == ("1 mask: gone-masklabel.png without a picture",)
    (crop,) = assign([(64, 32)], 64, 8)
    weights = load_mask(data / "a.png", data / "a-masklabel.png", crop)
    assert weights.shape == (crop.height // 8, crop.width // 8)
    assert weights[0, 0] == 0
    assert weights[0, -1] == 1
    flipped = load_mask(data / "a.png", data / "a-masklabel.png", crop, flip=True)
    assert np.allclose(flipped, weights[:, ::-1], atol=1e-6)
    Image.fromarray(half.T).save(data / "a-masklabel.png")
    assert find_examples(data).problems == ("a-masklabel.png is 32×64, its picture 64×32; give both the same shape",)


def test_damaged_pictures_are_all_named(data: Path) -> None:
    whole = save(data / "a.jpg", 1, (300, 200)).read_bytes()
    (data / "b.jpg").write_bytes(whole[: len(whole) // 2])
    (data / "c.png").write_bytes(b"")
    (data / "d.webp").write_bytes(save(data / "d.webp", 2).read_bytes()[:100])
    (data / "e.png").write_text("no picture")
    (data / "f.heic").write_bytes(b"x")
    dataset = find_examples(data)
    assert [dataset.name(example.path) for example in dataset.examples] == ["a.jpg"]
    assert [problem.split()[0] for problem in dataset.problems] == ["f.heic", "b.jpg", "c.png", "d.webp", "e.png"]
    assert dataset.problems[0] == "f.heic has an unsupported format; save it as PNG or JPEG"
    assert dataset.problems[1].startswith("b.jpg cannot be decoded (image file is truncated")
    assert dataset.problems[4] == "e.png is not a picture, or damaged; save it again as PNG or JPEG"


def test_decompression_bomb(data: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(data / "a.png", optimize=True)
    assert find_examples(data).problems == ("a.png has more than 178 million pixels; scale it down",)


def test_the_same_bytes_twice(data: Path) -> None:
    first = save(data / "a.png", 1, caption="x")
    save(data / "c.png", 2, caption="x")
    (data / "b.png").write_bytes(first.read_bytes())
    (data / "b.txt").write_text("x")
    dataset = clean(find_examples(data))
    assert len(dataset.examples) == 3
    assert dataset.notes == ("1 picture: b.png is a.png, byte for byte",)


def ghostscript(folder: Path) -> Path:
    """A program in its place, which writes a file when it is started; returns the file."""
    (folder / "gs").write_text(f"#!/bin/sh\ntouch {folder}/started\nexit 1\n")
    (folder / "gs").chmod(0o755)
    return folder / "started"


def test_only_formats_of_pictures_are_read(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow chooses its reader by the content, whatever the name says."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    started = ghostscript(tmp_path)
    (data / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n")
    pattern(1, (64, 64)).save(data / "b.png", "ICO")
    pattern(2, (64, 64)).save(data / "c.png", "TGA")
    reason = "is not a picture, or damaged; save it again as PNG or JPEG"
    assert find_examples(data).problems == tuple(f"{name}.png {reason}" for name in "abc")
    assert not started.exists()


@pytest.mark.parametrize("side", [64, 2048])
def test_tiles_count_as_pixels(data: Path, side: int) -> None:
    """The picture may be a corner of one large tile, which is decoded whole."""
    tile = zlib.compress(bytes(side * side))
    entries = [(256, 64), (257, 64), (258, 8), (259, 8), (262, 1), (277, 1)]  # the size, 8 bits, deflate, one grey
    entries += [(322, side), (323, side), (324, 8 + 2 + 12 * 10 + 4), (325, len(tile))]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    (data / "a.tif").write_bytes(b"II*\0" + struct.pack("<IH", 8, 10) + directory + bytes(4) + tile)
    problems = find_examples(data, most_pixels=1_000_000).problems
    assert problems == (() if side == 64 else ("a.tif has more than 1 million pixels; scale it down",))


def test_damaged_exif_data_turns_the_picture_all_the_same(data: Path) -> None:
    image = pattern(1, (96, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x011A] = 72.0
    raw = bytearray(exif.tobytes())
    raw[raw.index(b"\x01\x1a") + 3] = 2  # the resolution is text now, which Pillow reads and cannot write
    image.save(data / "a.png", exif=bytes(raw))
    (example,) = clean(find_examples(data)).examples
    assert example.size == (64, 96)
    assert load_upright(example.path).tobytes() == image.transpose(Image.Transpose.ROTATE_270).tobytes()

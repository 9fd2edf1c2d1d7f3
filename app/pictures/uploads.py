"""Pictures that clients upload, to start from or as masks; checked, and stored under the hash of their contents."""

import hashlib
import io
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from lorablend.adapters.errors import RequestError
from lorablend.adapters.files.atomic import atomic_write
from lorablend.engine.mask import greys
from lorablend.engine.pixel_budget import decoding
from lorablend.engine.upright import upright

__all__ = ["FORMATS", "MAX_PIXELS", "Uploads", "eight_bits", "opened"]

MAX_PIXELS = 4096 * 4096  # the largest picture that can be drawn
FORMATS = ("PNG", "JPEG", "WEBP")
"""The pictures that are taken, as Pillow calls them. It reads many others, and for PostScript it starts Ghostscript."""
_NAME = re.compile(r"[0-9a-f]{64}")
_LIFE = 7 * 86_400  # seconds


class Uploads:
    """The pictures in `folder`, which is created if it does not exist. Their names are SHA-256 hashes, never paths."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob(".*.part"):  # left by a process that was killed
            part.unlink(missing_ok=True)

    def keep(self, content: bytes) -> str:
        """Store a PNG, JPEG or WebP picture and return its name. Raises RequestError if it is invalid or too large.

        It is stored as a PNG, rotated as its EXIF data says, with its transparency but without any other metadata.
        """
        buffer = io.BytesIO()
        with opened(io.BytesIO(content)) as picture:
            _plain(picture).save(buffer, "PNG", compress_level=1)
        name = hashlib.sha256(buffer.getvalue()).hexdigest()
        path = self._path(name)
        try:
            os.utime(path)  # its lifetime begins again
        except FileNotFoundError:
            with atomic_write(path) as part:
                part.write_bytes(buffer.getvalue())
        return name

    def drop_old(self, used: Callable[[], str]) -> None:
        """Delete pictures uploaded more than a week ago, except those whose names occur in the text of `used`.

        It is asked only if there are such pictures.
        """
        old = [path for path in self._folder.glob("*.png") if time.time() - path.stat().st_mtime > _LIFE]
        text = used() if old else ""
        for path in old:
            if path.stem not in text:
                path.unlink()

    def path(self, name: str) -> Path:
        """The path of the picture. Raises RequestError if there is none of this name."""
        if not _NAME.fullmatch(name) or not self._path(name).is_file():
            raise RequestError(f"there is no uploaded picture {name[:80]!r}; upload it again")
        return self._path(name)

    def open(self, name: str) -> Image.Image:
        """Read the picture. Raises RequestError if there is none of this name."""
        with Image.open(self.path(name)) as picture, decoding(picture.width * picture.height):
            picture.load()
            return picture

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.png"


def eight_bits(picture: Image.Image) -> Image.Image:
    """Scale 16-bit greys to 8 bits; Pillow's own conversion would clip them at 255."""
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((greys(picture) * 255).round().astype(np.uint8))


@contextmanager
def opened(file: Path | IO[bytes], most_pixels: int = MAX_PIXELS, name: str = "") -> Iterator[Image.Image]:
    """Open a picture that somebody sent, to decode it in this block, which waits for its pixels of the common budget.

    Raises RequestError, with `name` in its message, for anything but a whole PNG, JPEG or WebP picture of at most
    `most_pixels`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked below
            picture = Image.open(file, formats=FORMATS)
        with picture:
            width, height = picture.size
            if width * height > most_pixels:
                size = f"{width} × {height} pixels"
                raise RequestError(f"{name or 'the picture'} has {size}, more than {most_pixels:,}; give a smaller one")
            with decoding(width * height):
                yield picture
    except (RequestError, MemoryError):
        raise
    except Exception as error:  # for damaged files Pillow's readers raise a dozen types
        text = "not a picture that can be read; give a complete PNG, JPEG or WebP file"
        raise RequestError(f"{name} is {text}" if name else text) from error


def _plain(picture: Image.Image) -> Image.Image:
    turned = eight_bits(upright(picture))
    has_alpha = turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info
    plain = turned.convert("RGBA" if has_alpha else "L" if turned.mode in ("1", "L") else "RGB")
    plain.info.clear()
    return plain

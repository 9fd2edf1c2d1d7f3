"""Pictures that clients send, to start from or as masks: checked, and kept under the hash of what they show."""

import hashlib
import io
import os
import re
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lorablend.adapters.errors import RequestError
from lorablend.engine.mask import greys

__all__ = ["MAX_PIXELS", "Uploads", "eight_bits"]

MAX_PIXELS = 4096 * 4096  # no more than can be drawn
_FORMATS = ("PNG", "JPEG", "WEBP")
_NAME = re.compile(r"[0-9a-f]{64}")
_LIFE = 7 * 86_400  # seconds


class Uploads:
    """The pictures in `folder`, which is made if it is not there. A name is a SHA-256, and never a path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.partial"):
            left.unlink(missing_ok=True)

    def keep(self, content: bytes) -> str:
        """The name of a PNG, JPEG or WebP picture from now on. Raises RequestError for what is none, or is too large.

        It is kept as a PNG, turned the right way up, with its transparency and nothing else of what was in the file.
        """
        picture = _decode(content)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)
        name = hashlib.sha256(buffer.getvalue()).hexdigest()
        path = self._path(name)
        try:
            os.utime(path)  # it lives on from now
        except FileNotFoundError:
            partial = path.with_suffix(f".{os.urandom(8).hex()}.partial")
            try:
                partial.write_bytes(buffer.getvalue())
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)  # a full disk would be fuller with it
        return name

    def drop_old(self, used: str) -> None:
        """Delete what was sent more than a week ago, but for the names that occur in the text `used`."""
        for path in self._folder.glob("*.png"):
            if path.stem not in used and time.time() - path.stat().st_mtime > _LIFE:
                path.unlink()

    def path(self, name: str) -> Path:
        """Where the picture lies. Raises RequestError if there is none of that name."""
        if not _NAME.fullmatch(name) or not self._path(name).is_file():
            raise RequestError(f"there is no uploaded picture {name[:80]!r}; upload it again")
        return self._path(name)

    def open(self, name: str) -> Image.Image:
        """As `path`."""
        with Image.open(self.path(name)) as picture:
            picture.load()
            return picture

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.png"


def eight_bits(picture: Image.Image) -> Image.Image:
    """Greys of 16 bits in 8; Pillow's own conversion would cut them off at 255."""
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((greys(picture) * 255).round().astype(np.uint8))


def _decode(content: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked below
            with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    raise RequestError(
                        f"the picture has {width} × {height} pixels, more than {MAX_PIXELS:,}; give a smaller one"
                    )
                upright = eight_bits(ImageOps.exif_transpose(picture))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RequestError("not a picture that can be read; give a whole PNG, JPEG or WebP file") from error
    has_alpha = upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info
    plain = upright.convert("RGBA" if has_alpha else "L" if upright.mode in ("1", "L") else "RGB")
    plain.info.clear()
    return plain

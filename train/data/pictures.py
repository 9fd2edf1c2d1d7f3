"""Picture files, decoded for training: within a size limit, upright, on white, cropped to a bucket."""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from lorablend.adapters.errors import DataError
from lorablend.engine.pixel_budget import decoding
from lorablend.engine.upright import upright
from lorablend.train.data.buckets import Crop

__all__ = [
    "FORMATS",
    "MOST_PIXELS",
    "SUFFIXES",
    "Measured",
    "load_mask",
    "load_picture",
    "load_upright",
    "measure",
    "measure_all",
]

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif"}
# Pillow's names for them. Its other readers are not asked, whatever a file is called: that of PostScript starts
# Ghostscript, and an icon may hold a picture of any size.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")
MOST_PIXELS = 178_956_970  # Pillow's own limit; a camera's 102 megapixels are within it
_ORIENTATION = 0x0112  # EXIF
_TURNED = {5, 6, 7, 8}  # the orientations that swap width and height


class Measured(NamedTuple):
    """A picture's size, (width, height) in pixels after EXIF rotation, and whether parts of it may be transparent."""

    size: tuple[int, int]
    alpha: bool


def measure(path: Path, name: str, most_pixels: int = MOST_PIXELS) -> Measured:
    """Decode a picture to its end.

    Raises:
        DataError: The file is damaged, has too many pixels, or is not a picture; the message starts with `name`.
    """
    with _opened(path, name, most_pixels) as image:
        size = image.size
        image.draft("RGB", (size[0] // 8, size[1] // 8))  # JPEG: reads every byte, decodes an eighth
        turned = image.getexif().get(_ORIENTATION) in _TURNED
        with decoding(_pixels(image)):
            image.load()
        return Measured((size[1], size[0]) if turned else size, _is_transparent(image))


def measure_all(files: Sequence[tuple[Path, str]], most_pixels: int = MOST_PIXELS) -> list[Measured | DataError]:
    """Call `measure` for each (path, name) in parallel; the result of a damaged file is its error."""

    def result_of(file: tuple[Path, str]) -> Measured | DataError:
        try:
            return measure(*file, most_pixels)
        except DataError as error:
            return error

    with _without_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(result_of, files))


def load_picture(path: Path, crop: Crop, flip: bool = False) -> np.ndarray:
    """Load a crop as sRGB, uint8 [height, width, 3], with transparent parts on white. Raises DataError."""
    return np.asarray(_cut(load_upright(path), crop, flip), np.uint8)


def load_upright(path: Path) -> Image.Image:
    """Load the whole picture, upright, in RGB, on white. Raises DataError."""
    with _without_warnings(), _opened(path, path.name) as image, decoding(_pixels(image)):
        image.load()
        return _on_white(upright(image))


def load_mask(path: Path, mask: Path, crop: Crop, flip: bool = False, factor: int = 8) -> np.ndarray:
    """Load the weight of each latent pixel, 0 to 1: float32 [height / factor, width / factor].

    Args:
        mask: A grey picture, in which white is weight 1; the picture's own `path` stands for its alpha channel.

    Raises:
        DataError: The mask cannot be decoded.
    """
    with _without_warnings(), _opened(mask, mask.name) as image, decoding(_pixels(image)):
        image.load()
        turned = upright(image)
        grey = turned.convert("RGBA").getchannel("A") if mask == path else _on_white(turned).convert("L")
    pixels = np.asarray(_cut(grey, crop, flip), np.float32) / 255
    rows, columns = crop.height // factor, crop.width // factor
    return pixels[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor).mean((1, 3))


def _cut(image: Image.Image, crop: Crop, flip: bool) -> Image.Image:
    box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    cut = image.resize(crop.scaled, Image.Resampling.LANCZOS).crop(box)
    return ImageOps.mirror(cut) if flip else cut


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow would clip at 255
        levels = np.asarray(image, np.float32)
        return Image.fromarray((levels / 257).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if not _is_transparent(image):
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _pixels(image: Image.Image) -> int:
    """The pixels that decoding takes room for. A TIFF's tiles may be larger than its picture."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    tile = tags.get(TiffImagePlugin.TILEWIDTH, 0) * tags.get(TiffImagePlugin.TILELENGTH, 0)
    return max(image.width * image.height, tile)


@contextmanager
def _opened(path: Path, name: str, most_pixels: int = MOST_PIXELS) -> Iterator[Image.Image]:
    """Open a picture; any error while it is being read becomes a DataError."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if _pixels(image) > most_pixels:
                raise Image.DecompressionBombError
            yield image
    except Image.DecompressionBombError:
        raise DataError(f"{name} has more than {most_pixels // 10**6} million pixels; scale it down") from None
    except UnidentifiedImageError:
        raise DataError(f"{name} is not a picture, or damaged; save it again as PNG or JPEG") from None
    except Exception as error:  # for damaged files Pillow's readers raise a dozen types
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        text = " ".join(str(reason).split()) or type(error).__name__
        raise DataError(f"{name} cannot be decoded ({text}); save it again as PNG or JPEG") from error


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings of large pictures; the limit that counts is `MOST_PIXELS`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""Picture files as training sees them: decoded within a limit, turned upright, put on white, cropped to a bucket."""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lorablend.adapters.errors import DataError
from lorablend.train.data.buckets import Crop

__all__ = ["MOST_PIXELS", "SUFFIXES", "Measured", "load_mask", "load_picture", "load_upright", "measure", "measure_all"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif"}
MOST_PIXELS = 178_956_970  # where Pillow itself refuses; a camera's 102 megapixels are still fine
_ORIENTATION = 0x0112  # EXIF
_TURNED = {5, 6, 7, 8}  # orientations by a quarter


class Measured(NamedTuple):
    """size: (width, height) after EXIF rotation, in pixels; alpha: whether parts may be transparent."""

    size: tuple[int, int]
    alpha: bool


def measure(path: Path, name: str) -> Measured:
    """What a picture is that can be decoded to its end.

    Raises DataError, with `name`, for a file that is damaged, has too many pixels or is no picture.
    """
    with _opened(path, name) as image:
        size = image.size
        image.draft("RGB", (size[0] // 8, size[1] // 8))  # JPEG: reads every byte, computes an eighth
        turned = image.getexif().get(_ORIENTATION) in _TURNED
        image.load()
        return Measured((size[1], size[0]) if turned else size, _is_transparent(image))


def measure_all(files: Sequence[tuple[Path, str]]) -> list[Measured | DataError]:
    """`measure` of each (path, name), several at once; an error in place of what is damaged."""

    def one(file: tuple[Path, str]) -> Measured | DataError:
        try:
            return measure(*file)
        except DataError as error:
            return error

    with _without_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(one, files))


def load_picture(path: Path, crop: Crop, flip: bool = False) -> np.ndarray:
    """The crop as uint8 [height, width, 3], sRGB; what is transparent is white. Raises DataError."""
    return np.asarray(_cut(load_upright(path), crop, flip), np.uint8)


def load_upright(path: Path) -> Image.Image:
    """The whole picture in RGB, on white. Raises DataError."""
    with _without_warnings(), _opened(path, path.name) as image:
        image.load()
        return _on_white(ImageOps.exif_transpose(image))


def load_mask(path: Path, mask: Path, crop: Crop, flip: bool = False, factor: int = 8) -> np.ndarray:
    """How much each latent pixel counts, 0 to 1: float32 [height / factor, width / factor]. Raises DataError.

    mask: a grey picture, white counts; the picture's own `path` means its alpha channel.
    """
    with _without_warnings(), _opened(mask, mask.name) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
        grey = upright.convert("RGBA").getchannel("A") if mask == path else _on_white(upright).convert("L")
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


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Image.Image]:
    """The open file; whatever goes wrong while it is read is a DataError."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except Image.DecompressionBombError:
        raise DataError(f"{name} has more than {MOST_PIXELS // 10**6} million pixels; scale it down") from None
    except UnidentifiedImageError:
        raise DataError(f"{name} is no picture, or a damaged one; save it anew as PNG or JPEG") from None
    except Exception as error:  # Pillow's readers raise a dozen kinds for damaged files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        text = " ".join(str(reason).split()) or type(error).__name__
        raise DataError(f"{name} cannot be decoded ({text}); save it anew as PNG or JPEG") from error


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Pillow warns of large pictures that it reads all the same; the limit here is `MOST_PIXELS`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

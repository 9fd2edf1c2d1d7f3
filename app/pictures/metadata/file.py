"""A picture file, opened: its texts, its size and kind, and how it is damaged."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from lorablend.adapters.errors import RequestError
from lorablend.adapters.wording import shown
from lorablend.app.pictures.metadata.stealth import hidden_texts
from lorablend.app.pictures.metadata.texts import Texts, texts_in
from lorablend.app.pictures.uploads import FORMATS
from lorablend.engine.pixel_budget import BUDGET, decoding

__all__ = ["open_texts"]

_MOST_TEXT = 8 << 20  # of all texts of a file; as JSON, they can take twenty times as much memory
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")


def open_texts(source: Path | bytes, name: str) -> tuple[Texts, tuple[int, int], str, str]:
    """The texts, the size and the kind of a picture file, and how it is damaged, "" if it is whole.

    Raises RequestError if it is no picture.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large pictures, which are checked below, and odd EXIF data
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                pixels = picture.width * picture.height
                if pixels > BUDGET:
                    size = f"{picture.width} × {picture.height} pixels"
                    raise RequestError(f"{name} has {size}, more than {BUDGET:,}; give a smaller one")
                with decoding(pixels):
                    texts, damage = _texts_of(picture, data, name)
                return texts, picture.size, f".{picture.format}".lower(), damage
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if data.startswith(_SIGNATURES) and not isinstance(error, Image.DecompressionBombError):
            raise RequestError(f"{name} is damaged and cannot be read; give the whole file") from None
        raise RequestError(f"{name} is not a picture that can be read; give a PNG, JPEG or WebP file") from None


def _texts_of(picture: Image.Image, data: bytes, name: str) -> tuple[Texts, str]:
    damage = ""
    try:
        picture.load()  # to the end: a PNG may have texts behind the pixels
    except Exception as error:  # for damaged files Pillow's readers raise a dozen types
        damage = shown(str(error))
    if not damage and not _is_whole(data):
        damage = "the end of the file is missing"
    texts = texts_in(picture)
    if sum(map(len, texts.named.values())) > _MOST_TEXT:
        raise RequestError(f"{name} has more than {_MOST_TEXT:,} characters of text in it, which are not read")
    if not damage and not texts.named:
        texts = Texts(hidden_texts(picture), texts.unreadable)
    return texts, damage


def _is_whole(data: bytes) -> bool:
    """Whether the file has its end, which Pillow does not miss where all pixels are there."""
    if data.startswith(b"RIFF"):
        return int.from_bytes(data[4:8], "little") + 8 <= len(data)
    return (b"IEND\xaeB`\x82" if data.startswith(b"\x89PNG") else b"\xff\xd9") in data

"""The picture of an adapter: a file next to it, named as A1111 names it, or the thumbnail in its metadata."""

import base64
import binascii
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Preview", "picture_beside", "read_picture", "read_thumbnail"]

_ENDINGS = tuple(f"{middle}.{suffix}" for middle in (".preview", "") for suffix in ("png", "jpg", "jpeg", "webp"))
_LARGEST = 20_000_000  # bytes

# First bytes -> media type. The bytes decide, not the file's name or its declared type: SVG and HTML, which can run
# scripts in a browser, are never served as a picture.
_MAGIC = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


@dataclass(frozen=True)
class Preview:
    """A picture as stored: PNG, JPEG or WebP."""

    content: bytes
    media_type: str


def picture_beside(name: str, names: Set[str]) -> str | None:
    """The picture of the adapter file `name` among the names in its folder: NAME.preview.png, NAME.png, .jpg, .webp…"""
    stem = name[: name.rindex(".")]
    for ending in _ENDINGS:
        if stem + ending in names:
            return stem + ending
    return None


def read_picture(path: Path, folder: Path) -> Preview | None:
    """Read a picture file; None if it is not a picture, or is a link out of `folder`."""
    try:
        if not path.resolve().is_relative_to(folder) or not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        return _preview(path.read_bytes())
    except OSError:
        return None


def read_thumbnail(metadata: Mapping[str, str]) -> Preview | None:
    """Read `modelspec.thumbnail`, a data URL (https://github.com/Stability-AI/ModelSpec); None if it has no picture."""
    kind, comma, data = metadata.get("modelspec.thumbnail", "").partition(",")
    if not comma or not kind.endswith(";base64") or len(data) > _LARGEST * 4 // 3:
        return None
    try:
        return _preview(base64.b64decode(data))
    except (binascii.Error, ValueError):
        return None


def _preview(content: bytes) -> Preview | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return Preview(content, "image/webp")
    return next((Preview(content, media) for magic, media in _MAGIC if content.startswith(magic)), None)

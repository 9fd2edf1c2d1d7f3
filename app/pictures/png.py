"""Picture files that contain the settings they were made with, and are always written whole.

There are two text chunks: `parameters` has AUTOMATIC1111's text, `lorablend` the record as JSON.
"""

import io
import itertools
import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from lorablend.adapters.errors import RequestError
from lorablend.adapters.files.atomic import atomic_write, part_of
from lorablend.app.files import move_in
from lorablend.app.pictures.infotext import write_infotext
from lorablend.app.pictures.metadata.texts import texts_in
from lorablend.app.pictures.record import Record, record_of
from lorablend.app.pictures.uploads import FORMATS
from lorablend.engine import Pipeline
from lorablend.engine.pixel_budget import decoding
from lorablend.engine.request import Request, Result
from lorablend.engine.upright import upright

__all__ = [
    "PngTexts",
    "check_texts",
    "encode",
    "look",
    "open_picture",
    "read_png",
    "save_picture",
    "save_png",
    "save_result",
    "text_chunks",
    "texts_of",
]

_KINDS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_OPTIONS: dict[str, dict[str, Any]] = {"jpeg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}
_UNICODE = b"UNICODE\0"
_MOST_EXIF = 65_533  # bytes in a JPEG, whose segments have a 16-bit length


@dataclass(frozen=True)
class PngTexts:
    """The texts in a picture file; None for one that it does not have."""

    parameters: str | None
    record: Record | None


def save_result(result: Result, pipe: Pipeline, folder: Path) -> list[Path]:
    """Write every picture of a result to `folder` as `<date>-<time>-<seed>.png`, and return the paths."""
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    return [
        save_png(image, folder, f"{now}-{seed}", text_chunks(result, seed, pipe))
        for image, seed in zip(result.images, result.seeds, strict=True)
    ]


def text_chunks(result: Result, seed: int, pipe: Pipeline) -> dict[str, str]:
    """The text chunks for the result's picture with this seed."""
    record = record_of(result, seed, pipe)
    parameters = write_infotext(result.request, result.blend, seed, record.model)
    return {"parameters": parameters, "lorablend": record.to_json()}


def save_png(image: Image.Image, folder: Path, stem: str, chunks: dict[str, str] | None = None) -> Path:
    """Write one picture with its text chunks as `stem.png`, or as `stem-2.png` and so on if that name is taken.

    The folder is created if it does not exist. The file appears in one step and never replaces another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = part_of(folder / f"{stem}.png")
    try:
        part.write_bytes(encode(image, "png", chunks or {}))
        names = (f"{stem}.png" if number == 1 else f"{stem}-{number}.png" for number in itertools.count(1))
        return next(folder / name for name in names if move_in(part, folder / name))
    finally:
        part.unlink(missing_ok=True)


def save_picture(image: Image.Image, path: Path, chunks: dict[str, str]) -> None:
    """Write a picture with its text chunks in the format that the suffix names; it may replace an older file.

    The folder is created if it does not exist. The file appears in one step.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_bytes(encode(image, _KINDS[path.suffix], chunks))


def encode(image: Image.Image, kind: str, chunks: dict[str, str]) -> bytes:
    """Encode a picture with its texts as the bytes of a file.

    JPEG and WebP have the texts in their EXIF data. A1111 reads `parameters` from the user comment, which is UTF-16
    after a prefix of eight bytes (EXIF 2.3, table 6).

    Args:
        image: The picture.
        kind: "png", "webp" (lossless) or "jpeg".
        chunks: The texts by their names, `parameters` and `lorablend`.
    """
    buffer = io.BytesIO()
    if kind == "png":
        info = PngInfo()
        for key, text in chunks.items():
            info.add_text(key, text)
        image.save(buffer, "PNG", pnginfo=info)
        return buffer.getvalue()
    exif = Image.Exif()
    if "parameters" in chunks:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = _UNICODE + chunks["parameters"].encode("utf-16-be")
    if "lorablend" in chunks:
        exif[ExifTags.Base.ImageDescription] = chunks["lorablend"]
    image.save(buffer, kind.upper(), exif=exif, **_OPTIONS[kind])
    return buffer.getvalue()


def read_png(path: Path) -> PngTexts:
    """Read the texts of a picture file. Raises RequestError if it is not a picture, or if its record is invalid."""
    return texts_of(open_picture(path), str(path))


def texts_of(picture: Image.Image, path: str) -> PngTexts:
    """The texts of an opened picture; `path` names it in errors. Raises RequestError if its record is invalid."""
    parameters, record = _texts(picture)
    try:
        return PngTexts(parameters, None if record is None else Record.from_json(record))
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error


def look(path: Path) -> tuple[tuple[int, int], PngTexts]:
    """Read the size and the texts of a picture. Raises RequestError like `open_picture` and `read_png`.

    If the picture has a record, its pixels are not read, which would take a hundred times as long: it was written
    whole, and needs no rotation.

    Returns:
        ((width, height), texts)
    """
    with suppress(Exception), Image.open(path, formats=FORMATS) as image:  # `open_picture` says what is wrong with it
        if image.format != "PNG" or "lorablend" in image.info:  # other PNGs may have more texts after the pixels
            texts = texts_of(image, str(path))
            if texts.record is not None:
                return image.size, texts
    picture = open_picture(path)
    return picture.size, texts_of(picture, str(path))


def parameters_of(picture: Image.Image) -> str | None:
    """A1111's text alone, which can be read even if a newer lorablend wrote the record."""
    return _texts(picture)[0]


def open_picture(path: Path) -> Image.Image:
    """Read any picture file, rotated as its EXIF data says. Raises RequestError if it cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as image, decoding(image.width * image.height):
            image.load()
            return upright(image)
    except UnidentifiedImageError:
        raise RequestError(f"{path} is not a picture; give a PNG, JPEG or WebP file") from None
    except Image.DecompressionBombError:
        raise RequestError(f"{path} has too many pixels; give a smaller picture") from None
    except Exception as error:  # of a dozen types: a damaged file, or too long a text in it
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RequestError(f"{path} cannot be read: {reason}") from error


def check_texts(request: Request, kind: str) -> None:
    """Raise RequestError if the texts of the pictures may be too long for this kind of file. Call it before drawing."""
    text = request.to_json()
    plain, items = json.dumps(json.loads(text)), len(request.blend["items"])
    longest = len(plain) + len(text.encode("utf-16-be")) + 500 * items + 2000  # hashes, versions, names of settings
    if kind == "jpeg" and longest > _MOST_EXIF:
        raise RequestError(
            f"the prompts and settings take up to {longest:,} bytes, but a JPEG holds {_MOST_EXIF:,}; shorten them, "
            "or choose png or webp"
        )


def _texts(picture: Image.Image) -> tuple[str | None, str | None]:
    """A1111's text, and our record. A PNG's EXIF is behind its pixels, so that it is looked at last."""
    parameters, record = picture.info.get("parameters"), picture.info.get("lorablend")
    if parameters is not None or record is not None:
        return parameters, record
    texts = texts_in(picture).named
    record = texts.get("ImageDescription", "")
    return texts.get("parameters", texts.get("UserComment")), record if record.startswith('{"request"') else None

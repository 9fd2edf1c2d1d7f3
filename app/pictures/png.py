"""Pictures as files that know how they were made, and are never half-written.

Two text chunks: `parameters` is AUTOMATIC1111's text, `lorablend` is the record as JSON.
"""

import io
import itertools
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from lorablend.adapters.errors import RequestError
from lorablend.app.pictures.infotext import write_infotext
from lorablend.app.pictures.record import Record, record_of
from lorablend.engine import Pipeline
from lorablend.engine.request import Request, Result

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
_MOST_EXIF = 65_533  # bytes, in a JPEG: the length of a segment has 16 bits


@dataclass(frozen=True)
class PngTexts:
    """What a PNG says about itself; None where it says nothing."""

    parameters: str | None
    record: Record | None


def save_result(result: Result, pipe: Pipeline, folder: Path) -> list[Path]:
    """Write every picture of a result to `folder`, as `<date>-<time>-<seed>.png`, and return where they are."""
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
    """Write one picture with its text chunks, as `stem.png`, or `stem-2.png` and so on where that is taken.

    The folder is made if it is not there. The file appears in one piece.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{stem}.{os.getpid()}.partial"
    try:
        partial.write_bytes(encode(image, "png", chunks or {}))
        return _name(partial, folder, stem)
    finally:
        partial.unlink(missing_ok=True)


def save_picture(image: Image.Image, path: Path, chunks: dict[str, str]) -> None:
    """Write a picture with its text chunks as the format that the suffix says, in the place of what was there.

    The folder is made if it is not there. The file appears in one piece.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(encode(image, _KINDS[path.suffix], chunks))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def encode(image: Image.Image, kind: str, chunks: dict[str, str]) -> bytes:
    """kind: png, webp (without loss) or jpeg. What is no PNG has the chunks in its EXIF.

    A1111 reads `parameters` from the user comment, which is UTF-16 after a mark of eight bytes (EXIF 2.3, table 6).
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
    """The texts of a picture. Raises RequestError if it is none, or if its record makes no sense."""
    return texts_of(open_picture(path), str(path))


def texts_of(picture: Image.Image, path: str) -> PngTexts:
    """As `read_png`; path: what to call the picture."""
    parameters, record = _texts(picture)
    try:
        return PngTexts(parameters, None if record is None else Record.from_json(record))
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error


def look(path: Path) -> tuple[tuple[int, int], PngTexts]:
    """Width, height and texts of a picture. Raises RequestError as `open_picture` and `read_png`.

    Of one with a record the pixels, which take a hundred times as long, are not read: it was written in one piece, and
    is never to be turned.
    """
    with suppress(OSError, SyntaxError, ValueError, Image.DecompressionBombError), Image.open(path) as image:
        if image.format != "PNG" or "lorablend" in image.info:  # a PNG without it may have more texts behind the pixels
            texts = texts_of(image, str(path))
            if texts.record is not None:
                return image.size, texts
    picture = open_picture(path)
    return picture.size, texts_of(picture, str(path))


def parameters_of(picture: Image.Image) -> str | None:
    """A1111's text alone, which is read whatever a newer lorablend wrote beside it."""
    return _texts(picture)[0]


def open_picture(path: Path) -> Image.Image:
    """Any picture file, turned the right way up. Raises RequestError in one line if it cannot be read."""
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise RequestError(f"{path} is not a picture; give a PNG, JPEG or WebP file") from None
    except Image.DecompressionBombError:
        raise RequestError(f"{path} has too many pixels; give a smaller picture") from None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's words for a broken PNG, and for too long a text
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RequestError(f"{path} cannot be read: {reason}") from error


def check_texts(request: Request, kind: str) -> None:
    """Raise RequestError if the texts of a picture may be longer than its kind of file holds. Ask before the work."""
    text = request.to_json()
    plain, items = json.dumps(json.loads(text)), len(request.blend["items"])
    longest = len(plain) + len(text.encode("utf-16-be")) + 500 * items + 2000  # hashes, versions, names of settings
    if kind == "jpeg" and longest > _MOST_EXIF:
        raise RequestError(
            f"the prompts and settings take up to {longest:,} bytes, a JPEG holds {_MOST_EXIF:,}; shorten them, or "
            "choose png or webp"
        )


def _texts(picture: Image.Image) -> tuple[str | None, str | None]:
    parameters, record = picture.info.get("parameters"), picture.info.get("lorablend")
    return _exif_texts(picture) if parameters is None and record is None else (parameters, record)


def _exif_texts(picture: Image.Image) -> tuple[str | None, str | None]:
    exif = picture.getexif()
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    parameters = None
    if isinstance(comment, bytes) and comment.startswith(_UNICODE):
        parameters = comment[len(_UNICODE) :].decode("utf-16-be", errors="replace")
    record = exif.get(ExifTags.Base.ImageDescription)
    return parameters, record if isinstance(record, str) and record.startswith('{"request"') else None


def _name(partial: Path, folder: Path, stem: str) -> Path:
    """Give a whole file the first name that is free: in one step, so that a kill leaves no empty one."""
    for number in itertools.count(1):
        path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        try:
            os.link(partial, path)
        except FileExistsError:
            continue
        except OSError:  # a file system without hard links, such as a memory card's
            if path.exists():
                continue
            os.rename(partial, path)
        return path
    raise AssertionError("unreachable")

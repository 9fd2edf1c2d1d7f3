"""Pictures as PNG files that know how they were made, and are never half-written and never written over.

Two text chunks: `parameters` is AUTOMATIC1111's text, `lorablend` is the record as JSON.
"""

import io
import itertools
import os
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from lorablend.adapters.errors import RequestError
from lorablend.app.infotext import write_infotext
from lorablend.app.record import Record, record_of
from lorablend.engine import Pipeline
from lorablend.engine.request import Result

__all__ = ["PngTexts", "check_folder", "open_picture", "read_png", "save_png", "save_result", "text_chunks"]


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
    info = PngInfo()
    for key, text in (chunks or {}).items():
        info.add_text(key, text)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{stem}.{os.getpid()}.partial"
    path = None
    try:
        partial.write_bytes(buffer.getvalue())
        path = _claim(folder, stem)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        if path:
            path.unlink()
        raise
    return path


def read_png(path: Path) -> PngTexts:
    """The texts of a PNG. Raises RequestError if it is no picture, or if its record makes no sense."""
    info = open_picture(path).info
    record = info.get("lorablend")
    try:
        return PngTexts(info.get("parameters"), None if record is None else Record.from_json(record))
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error


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
    except (OSError, SyntaxError) as error:  # Pillow's word for a broken PNG is SyntaxError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RequestError(f"{path} cannot be read: {reason}") from error


def check_folder(folder: Path) -> None:
    """Raise RequestError unless pictures can be written to `folder`, which need not exist. Ask before the work."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise RequestError(f"{existing} is a file; give a folder for the pictures")
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise RequestError(f"{existing} cannot be written to ({error.strerror}); give another folder") from error


def _claim(folder: Path, stem: str) -> Path:
    """Reserve a name that no file has, for good even if two programs ask at once."""
    for number in itertools.count(1):
        path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        try:
            path.open("xb").close()
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable")

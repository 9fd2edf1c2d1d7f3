"""Files that are sent for a data set: names are made safe, pictures checked, captions read."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from lorablend.adapters.errors import DataError, RequestError
from lorablend.adapters.files.atomic import atomic_write
from lorablend.adapters.wording import listed, shown
from lorablend.app.files import clean_name, without_folders
from lorablend.app.pictures.uploads import MAX_PIXELS, eight_bits
from lorablend.engine.pixel_budget import BUDGET, decoding
from lorablend.engine.upright import upright
from lorablend.train.data.archives import ARCHIVES
from lorablend.train.data.captions import lines_of, read_captions
from lorablend.train.data.draft import MASK, SIDECARS, walk
from lorablend.train.data.examples import Example
from lorablend.train.data.layouts import DataSet, find_examples
from lorablend.train.data.pictures import FORMATS, SUFFIXES, load_upright

__all__ = [
    "KEPT",
    "TEXT",
    "check_caption",
    "check_texts",
    "keep",
    "notes_of",
    "read",
    "receive",
    "stem_of",
    "write_text",
]

KEPT = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp"}  # what browsers show; other kinds become PNG
TEXT = ".txt"
_LISTS = (".json", ".jsonl", ".csv", ".toml")
_LONGEST_CAPTION = 20_000  # characters
_MOST_TEXT = 16 << 20  # bytes of all texts of a set; those of a list can take forty times as much memory


def receive(files: Iterable[tuple[str, BinaryIO]], folder: Path) -> Path | None:
    """Write the files to a folder under safe names; returns the archive, if the files are one.

    Raises DataError for a kind of file that is not taken, for two files of one name, and for an archive among others.
    """
    for given, content in files:
        suffix = next((end for end in (*SUFFIXES, TEXT, *ARCHIVES) if given.strip(" .").lower().endswith(end)), None)
        if suffix is None:
            kinds = "PNG, JPEG, WebP and other pictures, .txt files, or one .zip or .tar"
            raise DataError(f"{shown(given)} is not of a kind that is taken; send {kinds}")
        # The stem alone, because a long name is cut at its end.
        name = (clean_name(given.strip(" .")[: -len(suffix)]) or "picture") + suffix
        if (folder / name).exists():
            raise DataError(f"{shown(name)} appears twice; give one of the two another name")
        with (folder / name).open("xb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
    paths = list(folder.iterdir())
    archives = [path for path in paths if path.name.lower().endswith(ARCHIVES)]
    if archives and len(paths) > 1:
        raise DataError(f"{shown(archives[0].name)} is an archive; send it by itself")
    return archives[0] if archives else None


def read(folder: Path) -> DataSet:
    """The data set in a folder. Raises DataError that names every bad file."""
    try:
        dataset = find_examples(folder, most_pixels=BUDGET)
    except DataError as error:
        raise DataError(without_folders(str(error), (folder,))) from error
    if dataset.problems:
        count = f"{len(dataset.problems)} problems: " if len(dataset.problems) > 1 else ""
        raise DataError(count + " | ".join(dataset.problems))
    return dataset


def check_texts(folder: Path) -> None:
    """Raise DataError if there is far too much text, before any of it is read."""
    files = walk(folder)
    kinds = {*SIDECARS, *_LISTS}
    if any(file.suffix.lower() == ".toml" for file in files):  # it may call any file a caption
        kinds |= {file.suffix.lower() for file in files} - SUFFIXES
    total = sum(file.stat().st_size for file in files if file.suffix.lower() in kinds)
    if total > _MOST_TEXT:
        raise DataError(
            f"the texts among the files have {total / 1e6:.1f} MB, {_MOST_TEXT / 1e6:.1f} MB at most are read here; "
            "leave out what is no caption"
        )


def notes_of(dataset: DataSet | None) -> tuple[str, ...]:
    """What a person should know about the files that were sent."""
    if dataset is None:
        return ()
    repeated = [dataset.name(example.path) for example in dataset.examples if example.repeats != 1]
    lost = [f"{listed(repeated, 'picture')}: repeats are not kept here"] if repeated else []
    return (dataset.layout, *dataset.notes, *lost)


def keep(example: Example, folder: Path) -> None:
    """Write a picture, its captions and its mask to a new folder, each named "picture". Raises RequestError.

    A picture larger than `MAX_PIXELS` is scaled down to it: that is more than any training uses, and a browser can
    still show it.
    """
    folder.mkdir()
    with Image.open(example.path, formats=FORMATS) as picture:
        suffix, pixels = KEPT.get(picture.format or ""), picture.width * picture.height
    with Image.open(example.mask or example.path, formats=FORMATS) as mask:
        most = max(pixels, mask.width * mask.height)
    with decoding(most):
        _write(example, folder, suffix, pixels)


def _write(example: Example, folder: Path, suffix: str | None, pixels: int) -> None:
    scaled: tuple[int, int] | None = None
    if suffix and pixels <= MAX_PIXELS:
        shutil.copyfile(example.path, folder / f"picture{suffix}")
    else:
        picture = load_upright(example.path)
        if pixels > MAX_PIXELS:
            factor = math.sqrt(MAX_PIXELS / pixels)
            scaled = int(picture.width * factor), int(picture.height * factor)
            picture = picture.resize(scaled, Image.Resampling.LANCZOS)
        picture.save(folder / f"picture{suffix or '.png'}", quality=95)
    text = "\n".join(lines_of(example))
    check_caption(example.path.name, text)
    write_text(folder / f"picture{TEXT}", text)
    if example.mask:
        with Image.open(example.mask, formats=FORMATS) as file:
            mask = eight_bits(upright(file))
            grey = mask.convert("RGBA").getchannel("A") if example.mask == example.path else mask.convert("L")
        (grey.resize(scaled) if scaled else grey).save(folder / f"picture{MASK}.png")


def check_caption(name: str, text: str) -> None:
    """Raise RequestError for a caption that is far too long."""
    if len(text) > _LONGEST_CAPTION:
        raise RequestError(f"{shown(name)}: the caption has {len(text):,} characters; {_LONGEST_CAPTION:,} at most")


def stem_of(path: Path) -> str:
    """A name for a picture without a dot in it: "a.png.txt" would be another picture's caption."""
    stem = re.sub(f"({MASK})+$", "", clean_name(path.stem).replace(".", "_"))
    return stem or "picture"


def write_text(path: Path, text: str) -> None:
    """Write the captions in a text to a file; without captions, delete the file."""
    lines = read_captions(text)
    if not lines:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")

"""What is sent for a data set, taken in: names that are names, pictures that are sound, captions as text."""

from __future__ import annotations

import math
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps

from lorablend.adapters.errors import DataError
from lorablend.adapters.wording import listed, shown
from lorablend.app.files import clean_name, without_folders
from lorablend.app.pictures.uploads import MAX_PIXELS, eight_bits
from lorablend.train.data.archives import ARCHIVES
from lorablend.train.data.captions import read_captions, with_trigger
from lorablend.train.data.draft import MASK
from lorablend.train.data.examples import Example
from lorablend.train.data.layouts import DataSet, find_examples
from lorablend.train.data.pictures import SUFFIXES, load_upright

__all__ = ["KEPT", "TEXT", "keep", "notes_of", "read", "receive", "stem_of", "write_text"]

KEPT = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp"}  # what browsers show; the rest becomes PNG
TEXT = ".txt"


def receive(files: Iterable[tuple[str, BinaryIO]], folder: Path) -> Path | None:
    """Write the files to a folder under names that are names; the archive, if it is one."""
    for theirs, content in files:
        suffix = next((one for one in (*SUFFIXES, TEXT, *ARCHIVES) if theirs.strip(" .").lower().endswith(one)), None)
        if suffix is None:
            kinds = "PNG, JPEG, WebP and other pictures, .txt files, or one .zip or .tar"
            raise DataError(f"{shown(theirs)} is of a kind that is not taken; send {kinds}")
        # The stem alone, for a long name is cut at its end.
        name = (clean_name(theirs.strip(" .")[: -len(suffix)]) or "picture") + suffix
        if (folder / name).exists():
            raise DataError(f"{shown(name)} is there twice; give one of the two another name")
        with (folder / name).open("xb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
    paths = list(folder.iterdir())
    archives = [path for path in paths if path.name.lower().endswith(ARCHIVES)]
    if archives and len(paths) > 1:
        raise DataError(f"{shown(archives[0].name)} is an archive; send it alone")
    return archives[0] if archives else None


def read(folder: Path) -> DataSet:
    """What is in a folder. Raises DataError with the name of everything that is bad."""
    try:
        found = find_examples(folder)
    except DataError as error:
        raise DataError(without_folders(str(error), (folder,))) from error
    if found.problems:
        count = f"{len(found.problems)} problems: " if len(found.problems) > 1 else ""
        raise DataError(count + " | ".join(found.problems))
    return found


def notes_of(found: DataSet | None) -> tuple[str, ...]:
    if found is None:
        return ()
    repeated = [found.name(example.path) for example in found.examples if example.repeats != 1]
    lost = [f"{listed(repeated, 'picture')}: repeats are not kept here"] if repeated else []
    return (found.layout, *found.notes, *lost)


def keep(example: Example, folder: Path) -> None:
    """A picture, its captions and its mask in a folder of their own, called "picture".

    A camera's largest are scaled down to `MAX_PIXELS`: more than any training sees, and what a browser still shows.
    """
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size was checked when it was read
        with Image.open(example.path) as picture:
            suffix, pixels = KEPT.get(picture.format or ""), picture.width * picture.height
    scaled: tuple[int, int] | None = None
    if suffix and pixels <= MAX_PIXELS:
        shutil.copyfile(example.path, folder / f"picture{suffix}")
    else:
        upright = load_upright(example.path)
        if pixels > MAX_PIXELS:
            factor = math.sqrt(MAX_PIXELS / pixels)
            scaled = int(upright.width * factor), int(upright.height * factor)
            upright = upright.resize(scaled, Image.Resampling.LANCZOS)
        upright.save(folder / f"picture{suffix or '.png'}", quality=95)
    captions = [with_trigger(caption, example.trigger) for caption in example.captions or ("",)]
    write_text(folder / f"picture{TEXT}", "\n".join(captions))
    if example.mask:
        with Image.open(example.mask) as file:
            mask = eight_bits(ImageOps.exif_transpose(file))
            grey = mask.convert("RGBA").getchannel("A") if example.mask == example.path else mask.convert("L")
        (grey.resize(scaled) if scaled else grey).save(folder / f"picture{MASK}.png")


def stem_of(path: Path) -> str:
    """A name for a picture, without a point in it: "a.png.txt" would be another picture's caption."""
    stem = re.sub(f"({MASK})+$", "", clean_name(path.stem).replace(".", "_"))
    return stem or "picture"


def write_text(path: Path, text: str) -> None:
    """The captions in a text; no file for none."""
    lines = read_captions(text)
    if not lines:
        path.unlink(missing_ok=True)
        return
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)

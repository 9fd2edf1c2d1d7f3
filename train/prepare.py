"""Prepare a data set: pictures cropped to their buckets, without near-duplicates, with captions and contact sheets."""

import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lorablend.adapters.errors import DataError, InputError, ResourceError
from lorablend.adapters.files.atomic import atomic_write
from lorablend.adapters.wording import shown
from lorablend.train.data.buckets import Crop, assign, bucket_step
from lorablend.train.data.captions import lines_of
from lorablend.train.data.duplicates import near_duplicates
from lorablend.train.data.examples import Example
from lorablend.train.data.folder_names import REGULARIZATION, kohya_folder
from lorablend.train.data.layouts import CaptionFrom, DataSet, find_examples
from lorablend.train.data.mosaic import PER_SHEET, draw_sheet
from lorablend.train.data.pictures import load_mask, load_picture
from lorablend.train.preflight import check_files

__all__ = ["Prepared", "prepare"]

_UNIT = 32  # pixels; fits every SDXL and demo model, and SD 1.5 from 512 on, where steps are of 64


@dataclass(frozen=True)
class Prepared:
    """The new data set, its contact sheets, which are next to it, and lines for people about what was done."""

    folder: Path
    sheets: tuple[Path, ...]
    lines: tuple[str, ...]


def prepare(
    data: Path,
    out: Path,
    *,
    resolution: int = 1024,
    buckets: bool = True,
    trigger: str | None = None,
    caption_from: CaptionFrom | None = None,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Write a copy of the data set to `out`, a folder that is new or empty: PNG and .txt files and masks.

    It appears completely or not at all; `data` does not change. Captions get the trigger word. If there is a trigger,
    repeats or regularization, the pictures are in kohya's folders, `<repeats>_<trigger>` and reg/`<repeats>_data`,
    which are read back as the same data set.

    Args:
        resolution: Each picture is scaled to about resolution² pixels.
        buckets: False crops all pictures to squares.
        caption_from: As for `find_examples`.
        skip_bad: Leave out and list damaged pictures, instead of raising DataError.
        progress: Called with (done, total) after each picture.

    Raises:
        DataError: The data set has problems.
        InputError: `out`, or a contact sheet, exists already.
        ResourceError: A file cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{shown(out)} is already there; choose another name or delete it")
    dataset = find_examples(data, trigger=trigger, caption_from=caption_from)
    lines = [dataset.layout, *dataset.notes]
    if skip_bad:
        lines += [f"left out: {problem}" for problem in dataset.problems]
        if not dataset.examples:
            raise DataError(f"{shown(data)}: every picture is damaged; there is nothing to prepare")
    else:
        check_files(dataset)
    examples = list(dict.fromkeys(dataset.examples))
    twins = near_duplicates(examples)
    lines += [
        f"left out: {dataset.name(examples[twin].path)} looks like {dataset.name(examples[original].path)}"
        for twin, original in twins
    ]
    kept = [example for index, example in enumerate(examples) if index not in dict(twins)]
    crops = assign([example.size for example in kept], resolution, bucket_step(_UNIT, resolution), buckets=buckets)
    for (width, height), count in sorted(Counter(crop.bucket for crop in crops).items()):
        lines.append(f"{width}×{height}: {count} picture{'s' * (count != 1)}")
    enlarged = sum(crop.enlarged for crop in crops)
    if enlarged:
        lines.append(f"{enlarged} picture{'s' * (enlarged != 1)} smaller than the bucket, enlarged")
    sheets = _sheet_paths(out, len(kept))
    names, lost = _names(kept)
    lines += [f"a folder's name cannot express the trigger; train with --trigger {shlex.quote(word)}" for word in lost]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(out) as folder:
            folder.mkdir()
            for done, (example, crop, name) in enumerate(zip(kept, crops, names, strict=True), 1):
                _write_example(folder, name, example, crop)
                if progress:
                    progress(done, len(kept))
            _write_sheets(folder, dataset, kept, crops, names, sheets)
    except OSError as error:
        raise ResourceError(f"{shown(out)} could not be written: {error.strerror or error}") from error
    lines.append(f"{len(kept)} of {len(examples)} pictures in {shown(out)}")
    return Prepared(out, tuple(sheets), tuple(lines))


def _names(examples: list[Example]) -> tuple[list[str], list[str]]:
    """New names without a suffix, unique on any file system, and the triggers that folder names cannot express."""
    taken: set[str] = set()
    names: list[str] = []
    folders = {example: kohya_folder(example.repeats, example.trigger) for example in examples}
    lost = {e.trigger: None for e, folder in folders.items() if e.trigger and folder != f"{e.repeats}_{e.trigger}"}
    nested = set(folders.values()) != {kohya_folder(1, None)} or any(example.regularization for example in examples)
    for example, kohya in folders.items():
        above = f"{REGULARIZATION[0]}/" if example.regularization else ""
        folder = f"{above}{kohya}/" if nested else ""
        name, number = f"{folder}{example.path.stem}", 1
        while name.casefold() in taken:
            number += 1
            name = f"{folder}{example.path.stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names, list(lost)


def _write_example(folder: Path, name: str, example: Example, crop: Crop) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(load_picture(example.path, crop)).save(folder / f"{name}.png")
    if captions := [text for text in lines_of(example) if text]:
        (folder / f"{name}.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    if example.mask:
        mask = load_mask(example.path, example.mask, crop, factor=1)
        Image.fromarray((mask * 255).round().astype(np.uint8)).save(folder / f"{name}-masklabel.png")


def _sheet_paths(out: Path, count: int) -> list[Path]:
    """Next to the folder, where no trainer mistakes them for pictures of the data set."""
    numbers = range(1, -(-count // PER_SHEET) + 1)
    paths = [out.with_name(f"{out.name}-sheet{'' if number == 1 else f'-{number}'}.png") for number in numbers]
    if taken := [path for path in paths if path.exists()]:
        raise InputError(f"{shown(taken[0])} is already there; choose another name or delete it")
    return paths


def _write_sheets(
    folder: Path,
    dataset: DataSet,
    examples: list[Example],
    crops: tuple[Crop, ...],
    names: list[str],
    sheets: list[Path],
) -> None:
    """Write contact sheets, sorted by bucket."""
    order = sorted(range(len(examples)), key=lambda index: (crops[index].bucket, names[index]))
    for number, path in enumerate(sheets):
        tiles = []
        for index in order[number * PER_SHEET : (number + 1) * PER_SHEET]:
            caption = " | ".join(text for text in lines_of(examples[index]) if text)
            label = caption or f"{dataset.name(examples[index].path)}: no caption"
            tiles.append((lambda file=folder / f"{names[index]}.png": Image.open(file).convert("RGB"), label))
        with atomic_write(path) as part:
            draw_sheet(tiles).save(part, "PNG")

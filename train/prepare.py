"""Make a data set ready: pictures cut to their buckets, near-duplicates left out, captions and contact sheets."""

import contextlib
import os
import shlex
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lorablend.adapters.errors import DataError, InputError, ResourceError
from lorablend.adapters.wording import shown
from lorablend.train.data.buckets import Crop, assign, bucket_step
from lorablend.train.data.captions import with_trigger
from lorablend.train.data.duplicates import near_duplicates
from lorablend.train.data.examples import Example
from lorablend.train.data.folder_names import REGULARIZATION, kohya_folder
from lorablend.train.data.layouts import CaptionFrom, DataSet, find_examples
from lorablend.train.data.mosaic import PER_SHEET, draw_sheet
from lorablend.train.data.pictures import load_mask, load_picture
from lorablend.train.preflight import check_files

__all__ = ["Prepared", "prepare"]

_UNIT = 32  # pixels; what every SDXL and demo model takes, and SD 1.5 from 512 on, where steps are of 64


@dataclass(frozen=True)
class Prepared:
    """folder: the new data set; sheets: its contact sheets, beside it; lines: what was done, for people."""

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
    """Write the data set to `out`, a folder that is new or empty: PNG and .txt files, masks, nothing else.

    It appears whole or not at all; `data` stays as it is. skip_bad: leave out, and list, what is damaged, instead of
    raising DataError. Captions get the trigger word. Where there is a trigger, repeats or regularization, the pictures
    lie in kohya's folders, which are read as the same again: `<repeats>_<trigger>`, and reg/`<repeats>_data`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{shown(out)} is already there; choose another name or delete it")
    dataset = find_examples(data, trigger=trigger, caption_from=caption_from)
    lines = [dataset.layout, *dataset.notes]
    if skip_bad:
        lines += [f"left out: {problem}" for problem in dataset.problems]
        if not dataset.examples:
            raise DataError(f"{shown(data)}: every picture is damaged; nothing is left to prepare")
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
    lines += [f"no folder's name can carry the trigger; train with --trigger {shlex.quote(word)}" for word in lost]
    with _new_folder(out) as work:
        for done, (example, crop, name) in enumerate(zip(kept, crops, names, strict=True), 1):
            _write_example(work, name, example, crop)
            if progress:
                progress(done, len(kept))
        _write_sheets(work, dataset, kept, crops, names, sheets)
    lines.append(f"{len(kept)} of {len(examples)} pictures in {shown(out)}")
    return Prepared(out, tuple(sheets), tuple(lines))


def _names(examples: list[Example]) -> tuple[list[str], list[str]]:
    """A new name without a suffix for each, unique on any file system; the triggers that no folder's name carries."""
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


def _write_example(work: Path, name: str, example: Example, crop: Crop) -> None:
    (work / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(load_picture(example.path, crop)).save(work / f"{name}.png")
    if captions := [text for text in _captions(example) if text]:
        (work / f"{name}.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    if example.mask:
        mask = load_mask(example.path, example.mask, crop, factor=1)
        Image.fromarray((mask * 255).round().astype(np.uint8)).save(work / f"{name}-masklabel.png")


def _captions(example: Example) -> list[str]:
    return [with_trigger(caption, example.trigger) for caption in example.captions or ("",)]


def _sheet_paths(out: Path, count: int) -> list[Path]:
    """Beside the folder, where no trainer takes them for pictures of the data set."""
    numbers = range(1, -(-count // PER_SHEET) + 1)
    paths = [out.with_name(f"{out.name}-sheet{'' if number == 1 else f'-{number}'}.png") for number in numbers]
    if taken := [path for path in paths if path.exists()]:
        raise InputError(f"{shown(taken[0])} is already there; choose another name or delete it")
    return paths


def _write_sheets(
    work: Path, dataset: DataSet, examples: list[Example], crops: tuple[Crop, ...], names: list[str], sheets: list[Path]
) -> None:
    """By bucket, so that the shapes that training sees stand together."""
    order = sorted(range(len(examples)), key=lambda index: (crops[index].bucket, names[index]))
    for number, path in enumerate(sheets):
        tiles = []
        for index in order[number * PER_SHEET : (number + 1) * PER_SHEET]:
            caption = " | ".join(text for text in _captions(examples[index]) if text)
            label = caption or f"{dataset.name(examples[index].path)}: no caption"
            tiles.append((lambda file=work / f"{names[index]}.png": Image.open(file).convert("RGB"), label))
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            draw_sheet(tiles).save(part, "PNG")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name when all is well."""
    work = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        work.mkdir(parents=True)
        yield work
        if out.exists():
            out.rmdir()  # empty, as was checked
        os.replace(work, out)
    except OSError as error:
        raise ResourceError(f"{shown(out)} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)

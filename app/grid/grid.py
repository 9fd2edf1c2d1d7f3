"""A grid: one prompt, up to three settings swept, every combination drawn, all on one labelled sheet."""

import dataclasses
import json
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from lorablend.adapters import parse_prompt, write_tags
from lorablend.app.grid.axes import Axis, parse_axis
from lorablend.app.grid.plan import Planned, plan_grid
from lorablend.app.pictures.record import model_name, record_of
from lorablend.app.pictures.sheet import Table, draw_sheet
from lorablend.engine import Pipeline, Result
from lorablend.engine.request import Callback
from lorablend.engine.settings import SETTINGS, Settings

__all__ = ["Cell", "Grid", "draw_grid"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One picture of a grid.

    Attributes:
        number: From 1, in the order of the sheet.
        phrases: One for each axis, see `Axis`.
    """

    number: int
    phrases: tuple[str, ...]
    result: Result

    @property
    def stem(self) -> str:
        """The name of its file, without the suffix."""
        words = re.sub(r"[^A-Za-z0-9_.+-]+", "-", " ".join(self.phrases)).strip("-.")
        return f"{self.number:03d}-{words}"[:100]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A drawn grid. The cells are in the order of the sheet: the first axis, the columns, runs fastest."""

    sheet: Image.Image
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]

    def to_json(self, pipe: Pipeline) -> str:
        """The sheet's contents, with the record of every picture, see `lorablend.app.pictures.record`."""
        axes = [{"name": axis.key, "labels": axis.labels} for axis in self.axes]
        cells = [
            {
                "phrases": cell.phrases,
                "record": json.loads(record_of(cell.result, cell.result.request.seed, pipe).to_json()),
            }
            for cell in self.cells
        ]
        return json.dumps({"axes": axes, "cells": cells}, ensure_ascii=False)


def draw_grid(
    pipe: Pipeline,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    axes: Sequence[Axis | str],
    blend: Any = (),
    seed: int | None = None,
    lora_dir: Path | None = None,
    callback: Callback | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    each: Callable[[Cell], None] | None = None,
    there: Callable[[int], Image.Image | None] | None = None,
    **settings: Any,
) -> Grid:
    """Draw every combination of the axes' values, and the sheet.

    Args:
        pipe: Draws the pictures.
        prompt, negative_prompt, blend, settings: As in `Pipeline.generate`; the axes' values replace them.
        axes: One to three, as `Axis` or as text, see `lorablend.app.grid.axes`: columns, rows, and tables.
        seed: One for all pictures; None draws it by chance.
        lora_dir: Where adapters are found by name.
        callback: Called after every step, with the number of the picture in the grid as its `picture`.
        progress: Called before each picture with (phrase, pictures done, pictures in all).
        each: Called with each picture when it is done, in the order that costs the engine least.
        there: Returns the picture of a number that was drawn before with the same arguments, or None. Such a picture is
            not drawn again.

    Raises:
        RequestError, BlendError, AdapterError: a value of an axis or a combination of values is not allowed, or there
            are more than 100 pictures. Nothing is drawn then.
        Cancelled: the callback returned False.
    """
    sweeps = [axis if isinstance(axis, Axis) else parse_axis(axis, lora_dir) for axis in axes]
    settings["seed"] = secrets.randbelow(2**32) if seed is None else seed
    planned = plan_grid(pipe, prompt, negative_prompt, sweeps, blend, lora_dir, settings)
    drawn: dict[int, Cell] = {}
    for index in _order(planned):
        picture, done = planned[index], len(drawn)
        if progress:
            progress(", ".join(picture.phrases), done, len(planned))
        result = there and _result(pipe, picture, there(picture.number))
        if not result:
            result = pipe.generate(
                picture.prompt,
                picture.negative_prompt,
                blend=picture.blend,
                callback=callback and partial(_report, callback, done, len(planned)),
                **picture.settings,
            )
        drawn[index] = Cell(number=picture.number, phrases=picture.phrases, result=result)
        if each:
            each(drawn[index])
    if progress:
        progress("sheet", len(planned), len(planned))
    cells = tuple(drawn[index] for index in range(len(planned)))
    sheet = draw_sheet(_tables(sweeps, cells), caption=_caption(prompt, negative_prompt, cells, pipe), flow=True)
    return Grid(sheet=sheet, axes=tuple(sweeps), cells=cells)


def _result(pipe: Pipeline, planned: Planned, picture: Image.Image | None) -> Result | None:
    """The result of an earlier drawing, made from its picture."""
    if picture is None:
        return None
    request = pipe.check(planned.prompt, planned.negative_prompt, blend=planned.blend, **planned.settings)
    return Result(images=[picture], seeds=request.seeds, timings={"total": 0.0}, blend=planned.blend, request=request)


def _order(planned: Sequence[Planned]) -> list[int]:
    """Group pictures by adapters, then by weights, then by guidance on or off; otherwise keep the sheet's order.

    A change of adapter may mean reading, rounding and even baking; a change of weight means multiplying or baking; and
    the genai runtime compiles again when guidance is turned on or off.
    """
    first: dict[Any, int] = {}

    def rank(index: int) -> tuple[int, ...]:
        picture = planned[index]
        adapters = tuple(id(item.adapter) for item in picture.blend)
        blend = (adapters, tuple(item.static_key for item in picture.blend))
        guidance = picture.settings.get("guidance_scale", Settings.guidance_scale)
        keys = (adapters, blend, (*blend, guidance > 1))
        return tuple(first.setdefault(key, index) for key in keys)

    return sorted(range(len(planned)), key=rank)


def _report(callback: Callback, picture: int, pictures: int, step: Any) -> bool | None:
    return callback(dataclasses.replace(step, picture=picture, pictures=pictures))


def _tables(axes: Sequence[Axis], cells: Sequence[Cell]) -> list[Table]:
    columns = axes[0]
    rows, tables = (axes[index] if len(axes) > index else None for index in (1, 2))
    width, height = len(columns.values), len(rows.values) if rows else 1
    lines = [[cell.result.images[0] for cell in cells[at : at + width]] for at in range(0, len(cells), width)]
    return [
        Table(
            heading=tables.phrases[index] if tables else "",
            columns=columns.labels,
            columns_title=columns.title,
            rows=rows.labels if rows else (),
            rows_title=rows.title if rows else "",
            pictures=lines[index * height : (index + 1) * height],
        )
        for index in range(len(lines) // height)
    ]


def _caption(prompt: str, negative_prompt: str | None, cells: Sequence[Cell], pipe: Pipeline) -> list[str]:
    """The prompts, and below them the settings that are the same in all pictures."""
    settings = [_settings(cell.result) for cell in cells]
    common = [text for text in settings[0] if all(text in others for others in settings)]
    lines = [f"“{parse_prompt(prompt)[0]}”", f"without “{negative_prompt}”" if negative_prompt else ""]
    return [line for line in (*lines, " · ".join([model_name(pipe.model.path), *common])) if line]


def _settings(result: Result) -> list[str]:
    """The settings in words. The tags of the prompt are in the blend."""
    request = result.request
    values = {name: getattr(request, name) for name in SETTINGS if name not in ("prompt", "negative_prompt", "batch")}
    size = f"{values.pop('width')}×{values.pop('height')}"
    phrases = [SETTINGS[name].phrase(value) for name, value in values.items() if SETTINGS[name].is_worth_telling(value)]
    return [*write_tags(result.blend), size, *phrases]

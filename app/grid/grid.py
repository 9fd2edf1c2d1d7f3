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
from lorablend.engine.schedulers import SCHEDULERS

__all__ = ["Cell", "Grid", "draw_grid"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One picture of a grid. number: from 1, in the order of the sheet; phrases: one for each axis, see `Axis`."""

    number: int
    phrases: tuple[str, ...]
    result: Result

    @property
    def stem(self) -> str:
        """A name for its file."""
        words = re.sub(r"[^A-Za-z0-9_.+-]+", "-", " ".join(self.phrases)).strip("-.")
        return f"{self.number:03d}-{words}"[:100]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """cells are in the order of the sheet: the first axis, the columns, runs fastest."""

    sheet: Image.Image
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]

    def to_json(self, pipe: Pipeline) -> str:
        """What the sheet shows, with the record of every picture, see `lorablend.app.pictures.record`."""
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

    axes: one to three, as `Axis` or as text, see `lorablend.app.grid.axes`; columns, rows, and tables. blend, seed and
    settings are those of `Pipeline.generate`; an axis wins over them. The seed is one for all pictures; None draws it.
    lora_dir: where adapters are found by name. callback: called after every step, its `picture` counts those of the
    grid. progress: called before each picture with (what it is, pictures done, pictures in all). each: called with each
    picture when it is done; they come in the order that costs the engine least. there: gives the picture of a number
    that was drawn before, with the same arguments, and is not drawn again; None where there is none.

    Raises:
        RequestError, BlendError, AdapterError: a value of an axis or a combination of them makes no sense, or there are
            more than 100 pictures. Nothing is drawn then.
        Cancelled: the callback returned False.
    """
    sweeps = [axis if isinstance(axis, Axis) else parse_axis(axis, lora_dir) for axis in axes]
    settings["seed"] = secrets.randbelow(2**32) if seed is None else seed
    planned = plan_grid(pipe, prompt, negative_prompt, sweeps, blend, lora_dir, settings)
    drawn: dict[int, Cell] = {}
    for index in _order(planned):
        one, done = planned[index], len(drawn)
        if progress:
            progress(", ".join(one.phrases), done, len(planned))
        result = there and _result(pipe, one, there(one.number))
        if not result:
            result = pipe.generate(
                one.prompt,
                one.negative_prompt,
                blend=one.blend,
                callback=callback and partial(_report, callback, done, len(planned)),
                **one.settings,
            )
        drawn[index] = Cell(number=one.number, phrases=one.phrases, result=result)
        if each:
            each(drawn[index])
    if progress:
        progress("sheet", len(planned), len(planned))
    cells = tuple(drawn[index] for index in range(len(planned)))
    sheet = draw_sheet(_tables(sweeps, cells), caption=_caption(prompt, negative_prompt, cells, pipe), flow=True)
    return Grid(sheet=sheet, axes=tuple(sweeps), cells=cells)


def _result(pipe: Pipeline, planned: Planned, picture: Image.Image | None) -> Result | None:
    """What drawing it brought."""
    if picture is None:
        return None
    request = pipe.check(planned.prompt, planned.negative_prompt, blend=planned.blend, **planned.settings)
    return Result(images=[picture], seeds=request.seeds, timings={"total": 0.0}, blend=planned.blend, request=request)


def _order(planned: Sequence[Planned]) -> list[int]:
    """Equal adapters together, among them equal weights, among them with and without guidance, else as on the sheet.

    Another adapter may have to be read, rounded and even baked, another weight is multiplied in or baked, and the genai
    runtime compiles for guidance.
    """
    first: dict[Any, int] = {}

    def rank(index: int) -> tuple[int, ...]:
        one = planned[index]
        adapters = tuple(id(item.adapter) for item in one.blend)
        blend = (adapters, tuple(item.static_key for item in one.blend))
        keys = (adapters, blend, (*blend, one.settings.get("guidance_scale", 2) > 1))
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
    """The prompts, and below them all settings that are the same in every picture."""
    settings = [_settings(cell.result) for cell in cells]
    common = [text for text in settings[0] if all(text in others for others in settings)]
    lines = [f"“{parse_prompt(prompt)[0]}”", f"without “{negative_prompt}”" if negative_prompt else ""]
    return [line for line in (*lines, " · ".join([model_name(pipe.model.path), *common])) if line]


def _settings(result: Result) -> list[str]:
    """Each in words. The tags of the prompt are in the blend."""
    request = result.request
    texts = [
        *write_tags(result.blend),
        f"{request.width}×{request.height}",
        f"{request.steps} steps",
        f"guidance {request.guidance_scale:g}",
        SCHEDULERS[request.scheduler].label,
        f"{request.spacing} spacing"
        if request.spacing
        else f"timesteps {', '.join(map(str, request.timesteps or ()))}",
        "" if request.strength is None else f"strength {request.strength:g}",
        f"seed {request.seed}",
    ]
    return [text for text in texts if text]

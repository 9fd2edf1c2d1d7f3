"""A grid: one prompt, up to three settings swept, every combination drawn, all on one labelled sheet."""

import dataclasses
import itertools
import json
import math
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from lorablend.adapters import Adapter, Blend, BlendItem, load_adapter, parse_prompt, resolve_blend, write_tags
from lorablend.adapters.errors import BlendError, RequestError
from lorablend.adapters.find import find_adapter
from lorablend.app.axes import MAX_PICTURES, Axis, Value, parse_axis
from lorablend.app.record import record_of
from lorablend.app.sheet import Table, draw_sheet
from lorablend.engine import Pipeline, Result
from lorablend.engine.attach import check_attach
from lorablend.engine.mask import open_mask
from lorablend.engine.pipeline import DEFAULT_STEPS, DEFAULT_STRENGTH
from lorablend.engine.request import Callback, Request
from lorablend.engine.schedulers import SCHEDULERS, NoiseSchedule, from_diffusers_class, plan

__all__ = ["Cell", "Grid", "draw_grid"]

_CHECKPOINT = "checkpoint"


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
        """What the sheet shows, with the record of every picture, see `lorablend.app.record`."""
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
    **settings: Any,
) -> Grid:
    """Draw every combination of the axes' values, and the sheet.

    axes: one to three, as `Axis` or as text, see `lorablend.app.axes`; columns, rows, and tables. blend, seed and
    settings are those of `Pipeline.generate`; an axis wins over them. The seed is one for all pictures; None draws it.
    lora_dir: where adapters are found by name. callback: called after every step, its `picture` counts those of the
    grid. progress: called before each picture with (what it is, pictures done, pictures in all). each: called with each
    picture when it is done; they come in the order that costs the engine least.

    Raises:
        RequestError, BlendError, AdapterError: a value of an axis or a combination of them makes no sense, or there are
            more than 100 pictures. Nothing is drawn then.
        Cancelled: the callback returned False.
    """
    sweeps = [axis if isinstance(axis, Axis) else parse_axis(axis, lora_dir) for axis in axes]
    _check_axes(sweeps)
    settings["seed"] = secrets.randbelow(2**32) if seed is None else seed
    entries = [blend] if isinstance(blend, Blend | Mapping) else list(blend)
    planned = _Planner(pipe, sweeps, prompt, negative_prompt, entries, lora_dir).cells(settings)
    drawn: dict[int, Cell] = {}
    for index in _order(planned):
        one, done = planned[index], len(drawn)
        if progress:
            progress(", ".join(one.phrases), done, len(planned))
        result = pipe.generate(
            one.prompt,
            one.negative_prompt,
            blend=one.blend,
            callback=callback and partial(_report, callback, done, len(planned)),
            **one.settings,
        )
        drawn[index] = Cell(number=index + 1, phrases=one.phrases, result=result)
        if each:
            each(drawn[index])
    if progress:
        progress("sheet", len(planned), len(planned))
    cells = tuple(drawn[index] for index in range(len(planned)))
    sheet = draw_sheet(_tables(sweeps, cells), caption=_caption(prompt, negative_prompt, cells, pipe), flow=True)
    return Grid(sheet=sheet, axes=tuple(sweeps), cells=cells)


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """A picture to be drawn: the arguments for `Pipeline.generate`."""

    phrases: tuple[str, ...]
    prompt: str
    negative_prompt: str | None
    blend: Blend
    settings: dict[str, Any]


class _Planner:
    """From the axes to the pictures, all checked. An adapter is read once, however many pictures have it."""

    def __init__(
        self,
        pipe: Pipeline,
        axes: Sequence[Axis],
        prompt: str,
        negative_prompt: str | None,
        entries: list[Any],
        lora_dir: Path | None,
    ) -> None:
        self._pipe = pipe
        self._axes = axes
        self._prompt, self._negative = prompt, negative_prompt
        self._entries = entries
        self._lora_dir = lora_dir
        self._schedule = NoiseSchedule.from_config(dict(pipe.model.scheduler_config))
        self._adapters: dict[Path, Adapter] = {}

    def cells(self, settings: dict[str, Any]) -> list[_Planned]:
        """In the order of the sheet: the last axis runs slowest."""
        turned = [list(zip(axis.values, axis.phrases, strict=True)) for axis in reversed(self._axes)]
        return [self._cell(list(reversed(combination)), settings) for combination in itertools.product(*turned)]

    def _cell(self, combination: list[tuple[Value, str]], settings: dict[str, Any]) -> _Planned:
        prompt, negative = self._prompt, self._negative
        settings, weights = dict(settings), []
        checkpoint: Adapter | None = None
        for axis, (value, _) in zip(self._axes, combination, strict=True):
            if axis.argument is not None:
                settings[axis.argument] = value
            elif axis.name == "prompt":
                prompt, negative = self._replaced(str(axis.values[0]), str(value), prompt, negative)
            elif axis.name == _CHECKPOINT:
                checkpoint = self._load(Path(str(value)))
            else:
                weights.append((axis.adapter, value))
        text, tags = parse_prompt(prompt)
        entries = [*self._entries, *tags, *([] if checkpoint is None else [(checkpoint, 1.0)])]
        blend = resolve_blend(entries, self._lora_dir, load=self._load, open_mask=open_mask)
        planned = _Planned(
            phrases=tuple(phrase for _, phrase in combination),
            prompt=text,
            negative_prompt=negative,
            blend=self._weighed(blend, weights, checkpoint),
            settings=settings,
        )
        self._check(planned)
        return planned

    def _load(self, path: Path) -> Adapter:
        key = path.absolute()  # not where a link leads: an adapter goes by its name
        if key not in self._adapters:
            self._adapters[key] = load_adapter(path, lenient=self._pipe.lenient)
        return self._adapters[key]

    def _replaced(self, word: str, by: str, prompt: str, negative: str | None) -> tuple[str, str | None]:
        """As AUTOMATIC1111's Prompt S/R: everywhere, in both prompts."""
        if word not in self._prompt and word not in (self._negative or ""):
            raise RequestError(f'"{word}" is neither in the prompt nor in the negative prompt; nothing to replace')
        return prompt.replace(word, by), None if negative is None else negative.replace(word, by)

    def _weighed(self, blend: Blend, weights: Sequence[tuple[str | None, Any]], checkpoint: Adapter | None) -> Blend:
        """The blend with adapters' own weights set; a weight of nobody's multiplies all, those included."""
        items = list(blend.items)
        swept: list[Adapter] = []
        for name, weight in weights:
            if name is None:
                continue
            adapter = checkpoint if name == _CHECKPOINT and checkpoint else self._named(name, blend)
            if any(adapter is other for other in swept):
                raise RequestError(f"the weight of {adapter.name} is on two axes; give each its own")
            swept.append(adapter)
            _set_weight(items, adapter, weight)
        for name, factor in weights:
            if name is None and not items:
                raise BlendError("the axis weight is for all adapters, but there is none; name one: weight:ink=0,0.5,1")
            if name is None:
                items = [_times(item, factor) for item in items]
        return dataclasses.replace(blend, items=tuple(items))

    def _named(self, name: str, blend: Blend) -> Adapter:
        """The blend's adapter of this name, else the one that `find_adapter` finds."""
        found = next((item.adapter for item in blend if item.adapter.name == name), None)
        return found or self._load(find_adapter(name, self._lora_dir))

    def _check(self, planned: _Planned) -> None:
        """Raise for what an axis can bring to a picture. What is the same in all, the first picture tells."""
        model, settings = self._pipe.model, planned.settings
        timesteps = settings.get("timesteps")
        steps = settings.get("steps")
        width, height = model.default_size
        with_image = settings.get("image") is not None
        strength = settings.get("strength")
        request = Request(
            prompt=planned.prompt,
            negative_prompt=planned.negative_prompt,
            blend=planned.blend.to_dict(),
            width=width,
            height=height,
            steps=steps if steps is not None else DEFAULT_STEPS if timesteps is None else len(timesteps),
            guidance_scale=settings.get("guidance_scale", 1.0),
            seed=settings["seed"],
            scheduler=settings.get("scheduler")
            or from_diffusers_class(model.scheduler_class, dict(model.scheduler_config)),
            spacing=settings.get("spacing"),
            batch=1,
            strength=DEFAULT_STRENGTH if strength is None and with_image else strength,
            timesteps=None if timesteps is None else tuple(timesteps),
        )
        plan(request.scheduler, request.steps, self._schedule, request.spacing, request.strength, request.timesteps)
        check_attach(planned.blend, model.parameters, model.family)


def _check_axes(axes: Sequence[Axis]) -> None:
    if not 1 <= len(axes) <= 3:
        raise RequestError(f"the grid has {len(axes)} axes; give 1 to 3")
    # Several words can be replaced; every other thing has one value at a time.
    keys = [f"prompt {axis.values[0]}" if axis.name == "prompt" else axis.key for axis in axes]
    for key, axis in zip(keys, axes, strict=True):
        if keys.count(key) > 1:
            raise RequestError(f"{axis.key} is on two axes; give each its own")
    counts = [len(axis.values) for axis in axes]
    if math.prod(counts) > MAX_PICTURES:
        raise RequestError(
            f"the grid has {math.prod(counts)} pictures ({'×'.join(map(str, counts))}); give at most {MAX_PICTURES}"
        )


def _set_weight(items: list[BlendItem], adapter: Adapter, weight: float) -> None:
    """Of the one item that has the adapter, or of a new one."""
    places = [index for index, item in enumerate(items) if item.adapter is adapter]
    if not places:
        items.append(BlendItem(adapter, weight))
        return
    if len(places) > 1:
        raise BlendError(
            f"{adapter.name} is in the blend {len(places)} times; its weight can be swept if it is there once"
        )
    item = items[places[0]]
    if item.unet is not None or item.text_encoder is not None:
        raise BlendError(
            f"{adapter.name} has a weight of its own for the UNet or the text encoders; give it one to sweep it"
        )
    items[places[0]] = dataclasses.replace(item, weight=weight)


def _times(item: BlendItem, factor: float) -> BlendItem:
    def times(weight: float | None) -> float | None:
        return None if weight is None else round(weight * factor, 9)

    return dataclasses.replace(
        item, weight=times(item.weight), unet=times(item.unet), text_encoder=times(item.text_encoder)
    )


def _order(planned: Sequence[_Planned]) -> list[int]:
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
    return [line for line in (*lines, " · ".join([pipe.model.path.resolve().name, *common])) if line]


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

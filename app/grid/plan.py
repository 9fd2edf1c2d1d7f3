"""Plan the pictures of a grid, and check all of them before the first one is drawn."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorablend.adapters import Adapter, Blend, BlendItem, load_adapter, parse_prompt, resolve_blend
from lorablend.adapters.errors import BlendError, RequestError
from lorablend.adapters.files.find import find_adapter
from lorablend.app.grid.axes import MAX_PICTURES, Axis, Value
from lorablend.engine import Pipeline
from lorablend.engine.attach import check_attach
from lorablend.engine.mask import open_mask
from lorablend.engine.settings import SETTINGS, Settings

__all__ = ["Planned", "check_axes", "plan_grid"]

_CHECKPOINT = "checkpoint"


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A picture to be drawn, as arguments for `Pipeline.generate`. For number and phrases see `Cell`."""

    number: int
    phrases: tuple[str, ...]
    prompt: str
    negative_prompt: str | None
    blend: Blend
    settings: dict[str, Any]


def plan_grid(
    pipe: Pipeline,
    prompt: str,
    negative_prompt: str | None,
    axes: Sequence[Axis],
    blend: Any,
    lora_dir: Path | None,
    settings: dict[str, Any],
) -> list[Planned]:
    """Plan the pictures, in the order of the sheet.

    Arguments and errors are those of `draw_grid`; settings must include the seed.
    """
    check_axes(axes)
    entries = [blend] if isinstance(blend, Blend | Mapping) else list(blend)
    return _Planner(pipe, axes, prompt, negative_prompt, entries, lora_dir).cells(settings)


class _Planner:
    """Turns axes into checked pictures. Each adapter is read once, however many pictures use it."""

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
        self._adapters: dict[Path, Adapter] = {}

    def cells(self, settings: dict[str, Any]) -> list[Planned]:
        """In the order of the sheet: the last axis runs slowest."""
        slowest_first = [list(zip(axis.values, axis.phrases, strict=True)) for axis in reversed(self._axes)]
        combinations = enumerate(itertools.product(*slowest_first), 1)
        return [self._cell(number, list(reversed(combination)), settings) for number, combination in combinations]

    def _cell(self, number: int, combination: list[tuple[Value, str]], settings: dict[str, Any]) -> Planned:
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
        planned = Planned(
            number=number,
            phrases=tuple(phrase for _, phrase in combination),
            prompt=text,
            negative_prompt=negative,
            blend=self._weighed(blend, weights, checkpoint),
            settings=settings,
        )
        self._check(planned)
        return planned

    def _load(self, path: Path) -> Adapter:
        key = path.absolute()  # links stay: an adapter is known by its own name
        if key not in self._adapters:
            self._adapters[key] = load_adapter(path, lenient=self._pipe.lenient)
        return self._adapters[key]

    def _replaced(self, word: str, by: str, prompt: str, negative: str | None) -> tuple[str, str | None]:
        """Replace a word everywhere in both prompts, like AUTOMATIC1111's Prompt S/R."""
        if word not in self._prompt and word not in (self._negative or ""):
            raise RequestError(f'"{word}" is neither in the prompt nor in the negative prompt; nothing to replace')
        return prompt.replace(word, by), None if negative is None else negative.replace(word, by)

    def _weighed(self, blend: Blend, weights: Sequence[tuple[str | None, Any]], checkpoint: Adapter | None) -> Blend:
        """The blend with the swept weights: named adapters' are set, then a weight without a name multiplies all."""
        items = list(blend.items)
        swept: list[Adapter] = []
        for name, weight in weights:
            if name is None:
                continue
            adapter = checkpoint if name == _CHECKPOINT and checkpoint else self._named(name, blend)
            if any(adapter is other for other in swept):
                raise RequestError(f"the weight of {adapter.name} is on two axes; give it one")
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
        adapter = next((item.adapter for item in blend if item.adapter.name == name), None)
        return adapter or self._load(find_adapter(name, self._lora_dir))

    def _check(self, planned: Planned) -> None:
        """Raise what drawing the picture would raise before it begins."""
        own = {name: planned.settings[name] for name in SETTINGS if name in planned.settings}
        settings = Settings(prompt=planned.prompt, negative_prompt=planned.negative_prompt, **own)
        image, mask = planned.settings.get("image"), planned.settings.get("mask")
        self._pipe.resolve(settings, planned.blend, image=image, mask=mask)
        check_attach(planned.blend, self._pipe.model.parameters, self._pipe.model.family)


def check_axes(axes: Sequence[Axis]) -> int:
    """The number of pictures of a grid. Raises RequestError for too many, and for two axes that sweep the same."""
    if not 1 <= len(axes) <= 3:
        raise RequestError(f"the grid has {len(axes)} axes; give 1 to 3")
    # Several words can be replaced; anything else has one value at a time.
    keys = [f"prompt {axis.values[0]}" if axis.name == "prompt" else axis.key for axis in axes]
    for key, axis in zip(keys, axes, strict=True):
        if keys.count(key) > 1:
            raise RequestError(f"{axis.key} is on two axes; give it one")
    counts = [len(axis.values) for axis in axes]
    if math.prod(counts) > MAX_PICTURES:
        raise RequestError(
            f"the grid has {math.prod(counts)} pictures ({'×'.join(map(str, counts))}); give at most {MAX_PICTURES}"
        )
    return math.prod(counts)


def _set_weight(items: list[BlendItem], adapter: Adapter, weight: float) -> None:
    """Set the weight of the one item that has the adapter, or add an item for it."""
    places = [index for index, item in enumerate(items) if item.adapter is adapter]
    if not places:
        items.append(BlendItem(adapter, weight))
        return
    if len(places) > 1:
        raise BlendError(
            f"{adapter.name} is in the blend {len(places)} times; its weight can only be swept if it is there once"
        )
    item = items[places[0]]
    if item.unet is not None or item.text_encoder is not None:
        raise BlendError(
            f"{adapter.name} has separate weights for UNet and text encoders; give it a single weight to sweep it"
        )
    items[places[0]] = dataclasses.replace(item, weight=weight)


def _times(item: BlendItem, factor: float) -> BlendItem:
    def times(weight: float | None) -> float | None:
        return None if weight is None else round(weight * factor, 9)

    return dataclasses.replace(
        item, weight=times(item.weight), unet=times(item.unet), text_encoder=times(item.text_encoder)
    )

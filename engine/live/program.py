"""Which adapters act in which step: schedules, one adapter in turn, averaged guidance, masks.

A program has for every step one or more passes. A pass binds its adapters and then asks the UNet; where a step has
several, their answers are averaged (LoRA Composite, arXiv 2402.16843). What is on or off for whole steps is plugged in
and out (`PluggedProgram`). Ramps and masks need a steered graph, where the adapters stay plugged in and their weights
move (`SteeredProgram`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from lorablend.adapters import Blend, BlendItem
from lorablend.adapters.errors import BlendError
from lorablend.engine.graph.steering import Size
from lorablend.engine.live.context_mix import ContextMix, Stacked
from lorablend.engine.live.text import Conditioning, changes_text
from lorablend.engine.live.unet import Prompted, Unet

__all__ = ["Pass", "PluggedProgram", "Program", "SteeredProgram", "always_on", "needs_steering"]

Encode = Callable[[Sequence[BlendItem]], list[Conditioning]]
"""The prompt, and the negative prompt if there is guidance, as the text encoders see them with these adapters."""


@dataclass(frozen=True)
class Pass:
    """bind makes the UNet ready; prompted is then given to it, for the prompt and for the negative prompt."""

    bind: Callable[[], None]
    prompted: Sequence[Prompted]


class Program(Protocol):
    errors: dict[str, float]
    """What `max_rank` cost in the worst of the passes, see `Plugs.tensors`."""

    def passes(self, step: int) -> Sequence[Pass]:
        """Of step number `step`, from 0."""
        ...


def always_on(blend: Blend, index: int, steps: int) -> bool:
    """Does an item act with its whole weight everywhere in every step?"""
    whole = all(blend.factors(step, steps)[index] == 1 for step in range(steps))
    return whole and blend.items[index].mask is None and blend.mode != "composite"


def needs_steering(blend: Blend, steps: int) -> bool:
    """Is there a mask, or a factor other than 0 and 1? BlendError for what cannot be steered."""
    found = any(item.mask is not None for item in blend.items) or any(
        factor not in (0, 1) for step in range(steps) for factor in blend.factors(step, steps)
    )
    if found and blend.mode == "composite":
        raise BlendError("mode composite takes neither masks nor ramps; use sum, or leave them out")
    return found


class PluggedProgram:
    """Adapters that are on or off for whole steps."""

    def __init__(self, blend: Blend, steps: int, unet: Unet, encode: Encode) -> None:
        groups = [_groups(blend, step, steps) for step in range(steps)]
        distinct = list(dict.fromkeys(group for of_step in groups for group in of_step))
        unet.reserve(len(distinct))
        made: dict[tuple[int, ...], Pass] = {}
        self.errors: dict[str, float] = {}
        for request, group in enumerate(distinct):
            items = [blend.items[index] for index in group]
            bind = partial(unet.plug, items, request=request)
            bind()
            for path, error in unet.errors.items():
                self.errors[path] = max(error, self.errors.get(path, 0.0))
            unet.steer({})
            prompted = [unet.prompt(conditioning) for conditioning in encode(items)]
            made[group] = Pass(bind, prompted)
        self._steps = [[made[group] for group in of_step] for of_step in groups]

    def passes(self, step: int) -> Sequence[Pass]:
        return self._steps[step]


def _groups(blend: Blend, step: int, steps: int) -> list[tuple[int, ...]]:
    """The items, by index, that act together, for each pass of a step."""
    on = tuple(index for index, factor in enumerate(blend.factors(step, steps)) if factor)
    return [(index,) for index in on] or [()] if blend.mode == "composite" else [on]


class SteeredProgram:
    """All adapters plugged in, those that are steered in a column each; column 0 has the others.

    Cross-attention's keys and values depend on no place, and they do depend on the text encoders: each masked adapter
    has a region with a pair of its own, made with the prompt as the text encoders see it with this adapter, and region
    0 has the pair without any of them. The text encoders see whole what acts in a step at all. Beyond that the pairs
    are linear in the factors, so those of a step are a sum of what was computed once (`ContextMix`).
    """

    def __init__(self, blend: Blend, steps: int, unet: Unet, encode: Encode) -> None:
        unet.reserve(1)
        self._unet, self._items = unet, blend.items
        self._factors = [blend.factors(step, steps) for step in range(steps)]
        steered = [i for i in range(len(blend)) if not always_on(blend, i, steps)]
        self._column_of = {index: column for column, index in enumerate(steered, start=1)}
        self._masked = [index for index, item in enumerate(blend.items) if item.mask is not None]
        self._refuse_placeless()
        self._cells = self._cells_of_masks()
        self._heard = [
            tuple(i for i, factor in enumerate(factors) if factor and changes_text(blend.items[i]))
            for factors in self._factors
        ]
        self._mix = ContextMix(unet.passed)
        self._contexts = {heard: self._context(heard, encode) for heard in dict.fromkeys(self._heard)}
        self._mixed: tuple[object, list[Prompted]] = (None, [])
        self._plug_all()
        self.errors = dict(unet.errors)

    def passes(self, step: int) -> Sequence[Pass]:
        def bind() -> None:
            self._plug_all()
            self._unet.steer(self._places(step))

        return [Pass(bind, self._prompted(step))]

    def _plug_all(self) -> None:
        self._unet.plug(self._items, [self._column_of.get(index, 0) for index in range(len(self._items))])

    def _refuse_placeless(self) -> None:
        for index in self._masked:
            item = self._items[index]
            for path in self._unet.placeless:
                if ("unet", path) in item.adapter.deltas and item.weight_of("unet", path):
                    raise BlendError(
                        f"{item.adapter.name} has a mask and changes {path}, which acts everywhere; "
                        f"set the weight of that block to 0, or leave out the mask"
                    )

    def _cells_of_masks(self) -> dict[tuple[int, Size], np.ndarray]:
        """Every mask, by item, at every resolution of the UNet."""
        sizes = {size for size in (*self._unet.steer_sizes.values(), *self._unet.region_sizes.values()) if size}
        masks = [(index, mask) for index, item in enumerate(self._items) if (mask := item.mask) is not None]
        return {(index, size): mask.cells(*size) for index, mask in masks for size in sizes}

    def _context(self, heard: tuple[int, ...], encode: Encode) -> "_Context":
        """For the steps in which the text encoders see these items."""
        steps = [factors for factors, of_step in zip(self._factors, self._heard, strict=True) if of_step == heard]
        on = [index for index in range(len(self._items)) if any(factors[index] for factors in steps)]
        moving = [index for index in on if any(factors[index] != 1 for factors in steps)]
        collected: list[list[Prompted]] = []
        terms: list[list[int | None]] = []
        for region in (None, *self._masked):
            here = [index for index in on if index not in self._masked or index == region]
            conditionings = encode([self._items[index] for index in here if index in heard])
            collected = collected or [[] for _ in conditionings]
            terms.append([None, *(index for index in here if index in moving)])
            for term in terms[-1]:
                self._unet.plug([self._items[index] for index in here if index not in moving or index == term])
                for of_prompt, conditioning in zip(collected, conditionings, strict=True):
                    of_prompt.append(self._unet.prompt(conditioning))
        return _Context([self._mix.stack(of_prompt) for of_prompt in collected], terms)

    def _prompted(self, step: int) -> list[Prompted]:
        context = self._contexts[self._heard[step]]
        coefficients = context.coefficients(self._factors[step])
        key = (self._heard[step], coefficients.tobytes())
        if self._mixed[0] != key:
            self._mixed = (key, [self._mix(stacked, coefficients) for stacked in context.prompts])
        return self._mixed[1]

    def _places(self, step: int) -> dict[str, np.ndarray]:
        """The inputs of `Unet.steer`."""
        inputs: dict[str, np.ndarray] = {}
        for name, size in self._unet.steer_sizes.items():
            height, width = size if size is not None and self._masked else (1, 1)
            columns = np.ones((1 + len(self._column_of), height, width), np.float32)
            for index, column in self._column_of.items():
                columns[column] = self._factors[step][index]
                if index in self._masked:
                    columns[column] *= 0 if size is None else self._cells[index, size]
            inputs[name] = columns
        for name, size in self._unet.region_sizes.items():
            if self._masked:
                cells = np.stack([self._cells[index, size].reshape(-1) for index in self._masked])
                inputs[name] = np.concatenate([1 - cells.sum(0, keepdims=True), cells])
        return inputs


@dataclass(frozen=True)
class _Context:
    """Keys and values to mix, for each prompt; and for each region its terms: an item, or None for the rest."""

    prompts: list[Stacked]
    terms: list[list[int | None]]

    def coefficients(self, factors: Sequence[float]) -> np.ndarray:
        """f32 [regions, terms]: keys and values with factors f are (1 - Σ f) · those without + Σ f · those with one."""
        rows = np.zeros((len(self.terms), sum(map(len, self.terms))), np.float32)
        start = 0
        for row, terms in zip(rows, self.terms, strict=True):
            moved = [factors[index] for index in terms if index is not None]
            row[start : start + len(terms)] = [1 - sum(moved), *moved]
            start += len(terms)
        return rows

"""Which adapters act in which step: schedules, adapters that take turns, averaged guidance, masks.

A program has one or more passes for each step. A pass binds its adapters and then calls the UNet; the answers of
several passes are averaged (LoRA Composite, arXiv:2402.16843). Adapters that are on or off for whole steps are plugged
in and out (`PluggedProgram`). Ramps and masks need a steered graph, in which the adapters stay plugged in and their
weights move (`SteeredProgram`).
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

__all__ = ["Pass", "PluggedProgram", "Program", "SteeredProgram", "Texts", "always_on", "needs_steering"]

Texts = tuple[str | None, ...]
"""The prompt of a step, and with guidance the negative prompt."""
Encode = Callable[[Texts, Sequence[BlendItem]], list[Conditioning]]
"""Encodes texts with these adapters in the text encoders."""


@dataclass(frozen=True)
class Pass:
    """One of the calls of the UNet in a step, or two with guidance.

    Attributes:
        bind: Makes the UNet ready.
        prompted: What to call it with, for the prompt and with guidance for the negative prompt.
    """

    bind: Callable[[], None]
    prompted: Sequence[Prompted]


class Program(Protocol):
    errors: dict[str, float]
    """What `max_rank` cost in the worst pass, see `Plugs.tensors`."""

    def passes(self, step: int) -> Sequence[Pass]:
        """The passes of a step, counted from 0."""
        ...


def always_on(blend: Blend, index: int, steps: int) -> bool:
    """Whether an item acts with its whole weight everywhere in every step."""
    whole = all(blend.factors(step, steps)[index] == 1 for step in range(steps))
    return whole and blend.items[index].mask is None and blend.mode != "composite"


def needs_steering(blend: Blend, steps: int) -> bool:
    """Whether a blend has a mask, or a factor other than 0 and 1.

    Raises:
        BlendError: it has, in a mode that cannot be steered.
    """
    steered = any(item.mask is not None for item in blend.items) or any(
        factor not in (0, 1) for step in range(steps) for factor in blend.factors(step, steps)
    )
    if steered and blend.mode == "composite":
        raise BlendError("mode composite takes neither masks nor ramps; use sum, or leave them out")
    return steered


class PluggedProgram:
    """Adapters that are on or off for whole steps."""

    def __init__(self, blend: Blend, texts: Sequence[Texts], unet: Unet, encode: Encode) -> None:
        """texts: one for each step."""
        steps = len(texts)
        groups = [_groups(blend, step, steps) for step in range(steps)]
        distinct = list(dict.fromkeys(group for of_step in groups for group in of_step))
        unet.reserve(len(distinct))
        made: dict[tuple[tuple[int, ...], Texts], Pass] = {}
        self.errors: dict[str, float] = {}
        for request, group in enumerate(distinct):
            items = [blend.items[index] for index in group]
            bind = partial(unet.plug, items, request=request)
            bind()
            for path, error in unet.errors.items():
                self.errors[path] = max(error, self.errors.get(path, 0.0))
            unet.steer({})
            acting = (of_step for of_step, on in zip(texts, groups, strict=True) if group in on)
            for of_step in dict.fromkeys(acting):
                prompted = [unet.prompt(conditioning) for conditioning in encode(of_step, items)]
                made[group, of_step] = Pass(bind, prompted)
        self._steps = [[made[group, of_step] for group in on] for of_step, on in zip(texts, groups, strict=True)]

    def passes(self, step: int) -> Sequence[Pass]:
        return self._steps[step]


def _groups(blend: Blend, step: int, steps: int) -> list[tuple[int, ...]]:
    """The indices of the items that act together, for each pass of a step."""
    on = tuple(index for index, factor in enumerate(blend.factors(step, steps)) if factor)
    return [(index,) for index in on] or [()] if blend.mode == "composite" else [on]


class SteeredProgram:
    """All adapters stay plugged in: each steered one in a column of its own, the others in column 0.

    Cross-attention's keys and values do not depend on a place, but they depend on the text encoders. So each masked
    adapter has a region with a pair of its own, made from the prompt as encoded with that adapter; region 0 has the
    pair without any masked adapter. In the text encoders an adapter is either off or has its whole weight, depending on
    whether it acts in the step. Otherwise the pairs are linear in the factors, so the pairs of a step are sums of pairs
    that were computed once (`ContextMix`).
    """

    def __init__(self, blend: Blend, texts: Sequence[Texts], unet: Unet, encode: Encode) -> None:
        """texts: one for each step."""
        steps = len(texts)
        unet.reserve(1)
        self._unet, self._items = unet, blend.items
        self._factors = [blend.factors(step, steps) for step in range(steps)]
        steered = [i for i in range(len(blend)) if not always_on(blend, i, steps)]
        self._column_of = {index: column for column, index in enumerate(steered, start=1)}
        self._masked = [index for index, item in enumerate(blend.items) if item.mask is not None]
        self._refuse_placeless()
        self._cells = self._cells_of_masks()
        self._heard = [
            (tuple(i for i, factor in enumerate(factors) if factor and changes_text(blend.items[i])), of_step)
            for factors, of_step in zip(self._factors, texts, strict=True)
        ]
        self._mix = ContextMix(unet.passed)
        self._contexts = {key: self._context(*key, encode) for key in dict.fromkeys(self._heard)}
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
                        "set the weight of that block to 0, or leave out the mask"
                    )

    def _cells_of_masks(self) -> dict[tuple[int, Size], np.ndarray]:
        """Each item's mask at each resolution of the UNet."""
        sizes = {size for size in (*self._unet.steer_sizes.values(), *self._unet.region_sizes.values()) if size}
        masks = [(index, mask) for index, item in enumerate(self._items) if (mask := item.mask) is not None]
        return {(index, size): mask.cells(*size) for index, mask in masks for size in sizes}

    def _context(self, heard: tuple[int, ...], texts: Texts, encode: Encode) -> "_Context":
        """The keys and values for the steps with these texts in which the text encoders have the items `heard`."""
        steps = [factors for factors, key in zip(self._factors, self._heard, strict=True) if key == (heard, texts)]
        on = [index for index in range(len(self._items)) if any(factors[index] for factors in steps)]
        moving = [index for index in on if any(factors[index] != 1 for factors in steps)]
        collected: list[list[Prompted]] = []
        terms: list[list[int | None]] = []
        for region in (None, *self._masked):
            here = [index for index in on if index not in self._masked or index == region]
            conditionings = encode(texts, [self._items[index] for index in here if index in heard])
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
        """The inputs of `Unet.steer` in a step."""
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
    """Keys and values to mix.

    Attributes:
        prompts: The terms of each prompt.
        terms: For each region, its terms: an item's index, or None for the term without any moving item.
    """

    prompts: list[Stacked]
    terms: list[list[int | None]]

    def coefficients(self, factors: Sequence[float]) -> np.ndarray:
        """The weight of each term in each region, f32 [regions, terms].

        With the factors f, keys and values are (1 - Σ f) · those without moving items + Σ f · those with one of them.
        """
        rows = np.zeros((len(self.terms), sum(map(len, self.terms))), np.float32)
        start = 0
        for row, terms in zip(rows, self.terms, strict=True):
            moved = [factors[index] for index in terms if index is not None]
            row[start : start + len(terms)] = [1 - sum(moved), *moved]
            start += len(terms)
        return rows

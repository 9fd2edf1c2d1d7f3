"""What of a blend is plugged in and what has to be baked, and the sum of what is baked.

Live is every delta that has low-rank factors, or a gate and factors, and a socket. The rest is baked: changes of norms,
biases and embeddings, changes of full rank, and products of factors (LoHa, LoKr) that would cost more than the layer.
Where a gate meets a baked change on one module, all of that module is baked: the gate is of the original weight.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from lorablend.adapters import Adapter, Blend, Delta
from lorablend.adapters.algorithms.delta import BiasDelta
from lorablend.adapters.errors import BlendError
from lorablend.adapters.wording import shown

__all__ = [
    "Changes",
    "Part",
    "Parts",
    "changes_of",
    "content_of",
    "is_live",
    "parts_to_bake",
    "refuse_unbakeable",
    "whole_modules",
]

Parameter: TypeAlias = tuple[str, str]
"""(component, "module path.weight" or "….bias")."""


@dataclass(frozen=True)
class Part:
    """One adapter's change of one parameter, and its weight in the blend."""

    adapter: Adapter
    delta: Delta | BiasDelta
    weight: float


Parts: TypeAlias = dict[Parameter, list[Part]]

Changes: TypeAlias = dict[str, dict[str, Callable[[np.ndarray], np.ndarray]]]
"""component -> parameter -> its new value as a function of the old one, both f32."""


def is_live(delta: Delta, shape: tuple[int, ...]) -> bool:
    """Can the change of a weight of this shape be plugged in at a cost of no more than the layer's own?"""
    if not delta.live or len(shape) < 2:
        return False
    if delta.rank is None or delta.live_rank <= delta.rank:
        return True
    out, columns = shape[0], int(np.prod(shape[1:]))
    return delta.live_rank <= out * columns / (out + columns)


def parts_to_bake(
    blend: Blend, shapes: Mapping[Parameter, tuple[int, ...]], sockets: Collection[tuple[str, str]] | None
) -> Parts:
    """The parts that cannot be live, by parameter.

    shapes: of every parameter of the model. sockets: the (component, module path) that have one; None bakes everything.
    """
    found: Parts = {}
    gated: set[Parameter] = set()
    for item in blend.items:
        for (component, path), delta in item.adapter.deltas.items():
            key = (component, f"{path}.weight")
            if not (weight := item.weight_of(component, path)):
                continue
            if sockets is None or (component, path) not in sockets or not is_live(delta, shapes[key]):
                found.setdefault(key, []).append(Part(item.adapter, delta, weight))
            elif delta.live == "gate":
                gated.add(key)
        for (component, path), bias in item.adapter.biases.items():
            key = (component, f"{path}.bias")
            if (weight := item.weight_of(component, path)) and key in shapes:
                found.setdefault(key, []).append(Part(item.adapter, bias, weight))
    for component, name in gated & found.keys():
        path = name.removesuffix(".weight")
        found[component, name] = [
            Part(item.adapter, item.adapter.deltas[component, path], weight)
            for item in blend.items
            if (component, path) in item.adapter.deltas and (weight := item.weight_of(component, path))
        ]
    return found


def whole_modules(parts: Parts, shapes: Mapping[Parameter, tuple[int, ...]]) -> set[tuple[str, str]]:
    """The (component, module path) of which even what could be live is among the parts."""
    return {
        (component, name.removesuffix(".weight"))
        for (component, name), of_parameter in parts.items()
        if name.endswith(".weight") and any(is_live(part.delta, shapes[component, name]) for part in of_parameter)  # pyright: ignore[reportArgumentType]
    }


def changes_of(parts: Parts) -> Changes:
    """W + Σ weight · ΔW as functions of W, every ΔW taken from the original W."""
    changes: Changes = {}
    for (component, name), of_parameter in sorted(parts.items(), key=lambda entry: entry[0]):
        changes.setdefault(component, {})[name] = partial(_changed, of_parameter)
    return changes


def _changed(parts: list[Part], weight: np.ndarray) -> np.ndarray:
    total = weight.copy()
    for part in parts:
        total += np.float32(part.weight) * part.delta.dense(weight)
    return total


def content_of(parts: Parts) -> str:
    """Equal for equal changes, whatever the files are called: 64 hex digits."""
    content = [
        [component, name, sorted((part.adapter.content, part.weight) for part in of_parameter)]
        for (component, name), of_parameter in sorted(parts.items(), key=lambda entry: entry[0])
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def refuse_unbakeable(blend: Blend) -> None:
    """BlendError for what no fixed weights can do."""
    for item in blend.items:
        if words := ", ".join(map(shown, item.adapter.embeddings)):
            raise BlendError(
                f"{item.adapter.name} brings words of its own ({words}), which weights cannot hold; use runtime=live"
            )
        for what, value in (("a schedule", item.schedule), ("a mask", item.mask)):
            if value is not None:
                raise BlendError(f"{item.adapter.name} has {what}, which weights cannot hold; use runtime=live")
    if blend.mode != "sum":
        raise BlendError(f"the blend's mode is {blend.mode}, which weights cannot hold; use sum, or runtime=live")

"""Which parts of a blend are plugged in and which must be baked, and the sum of the baked ones.

A delta is live if it has low-rank factors, or a gate and factors, and its module has a socket. The rest is baked:
changes of norms, biases and embeddings, changes of full rank, and products of factors (LoHa, LoKr) that would cost more
than the layer itself. If a module has both a gate and a baked change, all its changes are baked, because the gate is
computed from the original weight.
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
"""Component -> parameter -> its new value as a function of the old one, both f32."""


def is_live(delta: Delta, shape: tuple[int, ...]) -> bool:
    """Whether the change of a weight of this shape can be plugged in, at no more than the layer's own cost."""
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

    Args:
        blend: The adapters and their weights.
        shapes: The shape of each of the model's parameters.
        sockets: The (component, module path) of each socket; None bakes everything.
    """
    baked: Parts = {}
    gated: set[Parameter] = set()
    for item in blend.items:
        for (component, path), delta in item.adapter.deltas.items():
            key = (component, f"{path}.weight")
            if not (weight := item.weight_of(component, path)):
                continue
            if sockets is None or (component, path) not in sockets or not is_live(delta, shapes[key]):
                baked.setdefault(key, []).append(Part(item.adapter, delta, weight))
            elif delta.live == "gate":
                gated.add(key)
        for (component, path), bias in item.adapter.biases.items():
            key = (component, f"{path}.bias")
            if (weight := item.weight_of(component, path)) and key in shapes:
                baked.setdefault(key, []).append(Part(item.adapter, bias, weight))
    for component, name in gated & baked.keys():
        path = name.removesuffix(".weight")
        baked[component, name] = [
            Part(item.adapter, item.adapter.deltas[component, path], weight)
            for item in blend.items
            if (component, path) in item.adapter.deltas and (weight := item.weight_of(component, path))
        ]
    return baked


def whole_modules(parts: Parts, shapes: Mapping[Parameter, tuple[int, ...]]) -> set[tuple[str, str]]:
    """The (component, module path) of each module whose parts include one that could be live: all of it is baked."""
    return {
        (component, name.removesuffix(".weight"))
        for (component, name), of_parameter in parts.items()
        if name.endswith(".weight") and any(is_live(part.delta, shapes[component, name]) for part in of_parameter)  # pyright: ignore[reportArgumentType]
    }


def changes_of(parts: Parts) -> Changes:
    """W + Σ weight · ΔW as functions of W, with every ΔW computed from the original W."""
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
    """A digest of the changes, 64 hex digits, which does not depend on the files' names."""
    content = [
        [component, name, sorted((part.adapter.content, part.weight) for part in of_parameter)]
        for (component, name), of_parameter in sorted(parts.items(), key=lambda entry: entry[0])
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def refuse_unbakeable(blend: Blend) -> None:
    """Raise BlendError for parts of a blend that fixed weights cannot hold."""
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

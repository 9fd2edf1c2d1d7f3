"""A module's change as the tools need it: as factors if there are any, else dense, with the base model's weight."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from lorablend.adapters.adapter import Adapter
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.names.naming import block_of
from lorablend.adapters.tools.low_rank import Pair
from lorablend.adapters.wording import shown

__all__ = [
    "BlockProgress",
    "Module",
    "WeightReader",
    "by_block",
    "dense_change",
    "factors_of",
    "no_factors",
    "require_lora",
]

Module = tuple[str, str]  # (component, module path)
# Reads the base model's weight of (component, module path), float32; None if the model has no such module.
WeightReader = Callable[[str, str], "np.ndarray | None"]
BlockProgress = Callable[[str, int, int], None]  # called with (block, blocks done, blocks in all)


def by_block(modules: Iterable[Module], progress: BlockProgress | None) -> Iterator[Module]:
    """Yield the modules block by block, and report when a block begins and when all are done."""
    blocks: dict[str, list[Module]] = {}
    for module in modules:
        blocks.setdefault(f"{module[0]} {block_of(*module)}", []).append(module)
    for done, (block, members) in enumerate(blocks.items()):
        if progress:
            progress(block, done, len(blocks))
        yield from members
    if progress:
        progress("done", len(blocks), len(blocks))


def require_lora(adapter: Adapter) -> None:
    """Raise AdapterError for an adapter that changes biases, norms or words, which a LoRA file cannot contain."""
    remedy = "which a LoRA file cannot contain; blend or bake it as it is"
    for component, path in adapter.biases:
        raise AdapterError(f"{shown(adapter.name)} changes the bias of {component} {path}, {remedy}")
    for (component, path), delta in adapter.deltas.items():
        if delta.algorithm == "norm":
            raise AdapterError(f"{shown(adapter.name)} changes the norm {component} {path}, {remedy}")
    for word in adapter.embeddings:
        raise AdapterError(f"{shown(adapter.name)} contains the word {shown(word)}, {remedy}")


def factors_of(adapter: Adapter, module: Module, weight: float = 1.0) -> Pair | None:
    """Return the exact factors of one module's change times `weight`, or None.

    Raises AdapterError if they overflow float32.
    """
    pair = adapter.deltas[module].factors()
    if pair is None:
        return None
    with np.errstate(over="ignore"):
        down, up = pair[0], pair[1] * np.float32(weight)
    _check_finite(adapter, module, down, up)
    return down, up


def dense_change(adapter: Adapter, module: Module, weights: WeightReader | None, weight: float = 1.0) -> np.ndarray:
    """Return ΔW of one module times `weight` in float32, [out, in] or [out, in, kernel height, kernel width].

    Raises AdapterError if there are no factors and the base model's weight, which is then needed, is missing.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if pair := factors_of(adapter, module, weight):
            down, up = pair
            change = (up @ down.reshape(len(down), -1)).reshape(len(up), *down.shape[1:])
        elif weights is None:
            raise AdapterError(no_factors(adapter, module, "give the model whose weights it changes"))
        elif (base := weights(*module)) is None:
            raise AdapterError(f"{shown(adapter.name)} changes {' '.join(module)}, which the model does not have")
        else:
            change = np.float32(weight) * adapter.deltas[module].dense(base)
    _check_finite(adapter, module, change)
    return change


def _check_finite(adapter: Adapter, module: Module, *arrays: np.ndarray) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise AdapterError(f"{shown(adapter.name)}: the change of {' '.join(module)} does not fit float32")


def no_factors(adapter: Adapter, module: Module, remedy: str) -> str:
    """Return the message about a change that has no factors."""
    algorithm = adapter.deltas[module].algorithm
    return f"{shown(adapter.name)}: {' '.join(module)} is changed by {algorithm}, which has no factors; {remedy}"

"""A module's change as the tools need it: as factors if there are any, else dense, with the base model's weight."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from lorablend.adapters.adapter import Adapter
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.write import Stored
from lorablend.adapters.names.keys import BUNDLE_PREFIX
from lorablend.adapters.names.naming import Naming, block_of
from lorablend.adapters.tools.low_rank import Pair
from lorablend.adapters.wording import shown

__all__ = [
    "BlockProgress",
    "Module",
    "WeightReader",
    "by_block",
    "dense_change",
    "factors_of",
    "needs_model",
    "no_factors",
    "require_lora",
    "why_not_lora",
    "words_of",
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


def why_not_lora(adapter: Adapter, naming: Naming) -> str:
    """Return what a LoRA file with these names cannot contain, "" if it can contain all of the adapter.

    Words are not part of a LoRA, but stay beside it under their own names, which only kohya's files have.
    """
    remedy = "which a LoRA file cannot contain; blend or bake it as it is"
    if adapter.embeddings and adapter.base_model == "unknown" and any(c != "unet" for c, _ in adapter.deltas):
        return (
            f"{shown(adapter.name)} does not say whether it is for SD 1.5 or SDXL, on which kohya's names of text "
            "encoders depend, and contains words, which diffusers' names cannot express; blend or bake it as it is"
        )
    for component, path in adapter.biases:
        return f"{shown(adapter.name)} changes the bias of {component} {path}, {remedy}"
    for (component, path), delta in adapter.deltas.items():
        if delta.algorithm == "norm":
            return f"{shown(adapter.name)} changes the norm {component} {path}, {remedy}"
        if naming == "diffusers" and ".embeddings." in path:
            return f"{component} {path}: diffusers has no name for it; use kohya's names"
    if naming == "diffusers" and adapter.embeddings:
        word = next(iter(adapter.embeddings))
        return f"{shown(adapter.name)} contains the word {shown(word)}, which diffusers cannot read; use kohya's names"
    return ""


def needs_model(adapter: Adapter) -> bool:
    """Return whether some change can only be made dense with the base model's weight."""
    return any(delta.factors() is None for delta in adapter.deltas.values())


def require_lora(adapter: Adapter, naming: Naming, weights: WeightReader | None) -> None:
    """Raise AdapterError for an adapter that a LoRA file with these names cannot contain."""
    if reason := why_not_lora(adapter, naming):
        missing = reason.endswith(" names") and weights is None and needs_model(adapter)
        raise AdapterError(f"{reason} and give the model" if missing else reason)


def words_of(adapters: Iterable[Adapter]) -> dict[str, Stored]:
    """Return the tensors of all bundled words, as they are. Raises AdapterError if two adapters differ in one."""
    words: dict[str, Stored] = {}
    owners: dict[str, Adapter] = {}
    for adapter in adapters:
        for name, tensor in adapter.file.tensors.items():
            if not name.startswith(BUNDLE_PREFIX) or name in adapter.refused:
                continue
            word = tensor.dtype, tensor.array
            if name in words and (words[name][0] != word[0] or not np.array_equal(words[name][1], word[1])):
                raise AdapterError(
                    f"{shown(owners[name].name)} and {shown(adapter.name)} have different tensors {shown(name)}; "
                    "a file can have only one: blend them instead"
                )
            words[name], owners[name] = word, adapter
    return words


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

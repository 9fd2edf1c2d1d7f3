"""Merge several adapters with their weights into one LoRA file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np

from lorablend.adapters.adapter import Adapter
from lorablend.adapters.errors import AdapterError, BlendError, RequestError
from lorablend.adapters.files.provenance import merged_metadata
from lorablend.adapters.files.write import DTYPES, check_new
from lorablend.adapters.names.naming import NAMINGS, Naming
from lorablend.adapters.tools.changes import (
    BlockProgress,
    Module,
    WeightReader,
    by_block,
    dense_change,
    factors_of,
    no_factors,
    require_lora,
    words_of,
)
from lorablend.adapters.tools.lora_file import (
    LoraReport,
    check_choice,
    check_rank,
    common_base,
    common_dtype,
    write_lora,
)
from lorablend.adapters.tools.low_rank import LowRank, Pair, factorise, recompress
from lorablend.adapters.tools.sparsify import dare, ties

__all__ = ["METHODS", "Method", "merge"]

Method = Literal["svd", "concat", "ties", "dare"]
METHODS: tuple[Method, ...] = ("svd", "concat", "ties", "dare")

WeightedAdapter = tuple[int, Adapter, float]  # (place in the list, adapter, weight)


def merge(
    items: Sequence[tuple[Adapter, float]],
    out: Path,
    *,
    rank: int | None = None,
    method: Method = "svd",
    density: float = 0.5,
    seed: int = 0,
    naming: Naming = "kohya",
    dtype: str | None = None,
    weights: WeightReader | None = None,
    progress: BlockProgress | None = None,
) -> LoraReport:
    """Write Σ weight · ΔW of all adapters as a LoRA, beside their bundled words.

    Args:
        items: The adapters with their weights.
        out: The file to write, which must be new.
        rank: The largest rank of a module; None for the largest that any adapter has there (with "concat", the sum).
        method: How the changes are added up:

            - "svd": the best approximation of at most `rank`, by a truncated SVD of the factors.
            - "concat": all factors one after the other; exact, and the ranks add up.
            - "ties": trim, elect sign, merge (https://arxiv.org/abs/2306.01708) on the dense changes, each times its
              weight; then a truncated SVD.
            - "dare": drop and rescale (https://arxiv.org/abs/2311.03099) on the dense changes, then a truncated SVD.
        density: The part of each change's entries that "ties" and "dare" keep, above 0 and at most 1.
        seed: Decides what "dare" drops; 0 or more.
        naming: The names of the tensors, "kohya" or "diffusers".
        dtype: "f32", "f16" or "bf16"; None for the type of the inputs, f32 if they differ.
        weights: Reads the base model's weights; needed for changes without factors.
        progress: Called with (block, blocks done, number of blocks).

    Returns:
        What was written. The error of a module is that of the SVD.

    Raises:
        BlendError: There is nothing to merge.
        BaseModelError: The adapters are for different base models.
        AdapterError: The file cannot contain a change.
        RequestError: A setting is out of range.
        InputError: `out` exists.
    """
    _check(items, out, rank, method, density, seed, naming, dtype)
    adapters = [adapter for adapter, _ in items]
    base = common_base(adapters)
    for adapter in adapters:
        require_lora(adapter, naming, weights)
    words = words_of(adapter for adapter, weight in items if weight)
    factors: dict[Module, LowRank] = {}
    modules = sorted({module for adapter, weight in items if weight for module in adapter.deltas})
    for module in by_block(modules, progress):
        parts = [(i, each, weight) for i, (each, weight) in enumerate(items) if weight and module in each.deltas]
        if method == "concat":
            factors[module] = _concat(parts, module, rank)
            continue
        deltas = [adapter.deltas[module] for _, adapter, _ in parts]
        largest = rank or max(delta.live_rank or delta.rank or 1 for delta in deltas)
        if method == "svd":
            factors[module] = _svd(parts, module, largest, weights)
        else:
            changes = _dense(parts, module, weights)
            seeds = [(seed, i, crc32(" ".join(module).encode())) for i, _, _ in parts]
            total = ties(changes, density) if method == "ties" else dare(changes, density, seeds)
            factors[module] = factorise(total, largest)

    made_by = {
        "tool": "merge",
        "method": method,
        **({} if rank is None else {"rank": rank}),
        **({"density": density} if method in ("ties", "dare") else {}),
        **({"seed": seed} if method == "dare" else {}),
        "inputs": [{"name": each.name, "sha256": each.sha256, "weight": float(weight)} for each, weight in items],
    }
    metadata = merged_metadata([adapter.metadata for adapter in adapters], base, out.stem, made_by)
    return write_lora(out, factors, base, naming, dtype or common_dtype(adapters), metadata, words=words)


def _check(
    items: Sequence[tuple[Adapter, float]],
    out: Path,
    rank: int | None,
    method: str,
    density: float,
    seed: int,
    naming: str,
    dtype: str | None,
) -> None:
    if not items:
        raise BlendError("there is nothing to merge; give at least one adapter")
    check_choice("method", method, METHODS)
    check_choice("naming", naming, NAMINGS)
    check_choice("dtype", dtype or "f32", DTYPES)
    if rank is not None:
        check_rank(rank)
    if not 0 < density <= 1:
        raise RequestError(f"density is {density:g}; give a number above 0 and at most 1")
    if seed < 0:
        raise RequestError(f"seed is {seed}; give 0 or more")
    check_new(out)


def _concat(parts: Sequence[WeightedAdapter], module: Module, rank: int | None) -> LowRank:
    pairs: list[Pair] = []
    for _, adapter, weight in parts:
        if (pair := factors_of(adapter, module, weight)) is None:
            raise AdapterError(no_factors(adapter, module, "choose the method svd and give the model"))
        pairs.append(_even(*pair))
    needed = sum(len(down) for down, _ in pairs)
    if rank is not None and needed > rank:
        raise RequestError(f"rank is {rank}, but concat adds the ranks up to {needed}; give {needed} or the method svd")
    return recompress(pairs, needed)


def _even(down: np.ndarray, up: np.ndarray) -> Pair:
    """Scale both factors to about the same size, by powers of two, so that nothing is rounded and float16 fits both."""
    rows, columns = np.linalg.norm(down.reshape(len(down), -1), axis=1), np.linalg.norm(up, axis=0)
    used = (rows > 0) & (columns > 0)
    ratio = np.divide(rows, columns, where=used, out=np.ones_like(rows))
    factor = np.exp2(np.round(np.log2(ratio) / 2)).astype(np.float32)
    return down / factor.reshape(-1, *(1,) * (down.ndim - 1)), up * factor


def _svd(parts: Sequence[WeightedAdapter], module: Module, rank: int, weights: WeightReader | None) -> LowRank:
    pairs = [pair for _, adapter, weight in parts if (pair := factors_of(adapter, module, weight)) is not None]
    if len(pairs) == len(parts):
        return recompress(pairs, rank)
    return factorise(np.sum(_dense(parts, module, weights), axis=0), rank)


def _dense(parts: Sequence[WeightedAdapter], module: Module, weights: WeightReader | None) -> list[np.ndarray]:
    changes = [dense_change(adapter, module, weights, weight) for _, adapter, weight in parts]
    shape = max((change.shape for change in changes), key=len)  # a linear layer and a 1×1 convolution are the same
    for change in changes:
        if change.size != np.prod(shape) or len(change) != shape[0]:
            sizes = [" by ".join(map(str, each)) for each in (shape, change.shape)]
            raise AdapterError(
                f"{' '.join(module)}: changes of a {sizes[0]} weight and of a {sizes[1]} weight cannot be added"
            )
    return [change.reshape(shape) for change in changes]

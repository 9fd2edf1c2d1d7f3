"""Convert an adapter of any algorithm to a LoRA, or to a smaller rank."""

from pathlib import Path
from typing import Any

from lorablend.adapters.adapter import Adapter
from lorablend.adapters.files.provenance import rewritten_metadata
from lorablend.adapters.files.write import DTYPES, check_new
from lorablend.adapters.names.naming import NAMINGS, Naming
from lorablend.adapters.tools.changes import Module, WeightReader, dense_change, factors_of, require_lora, words_of
from lorablend.adapters.tools.lora_file import (
    LARGEST_RANK,
    LoraReport,
    check_choice,
    check_size,
    common_dtype,
    write_lora,
)
from lorablend.adapters.tools.low_rank import LowRank, factorise, recompress

__all__ = ["resize"]


def resize(
    adapter: Adapter,
    out: Path,
    *,
    rank: int | None = None,
    keep: float | None = None,
    naming: Naming = "kohya",
    dtype: str | None = None,
    weights: WeightReader | None = None,
) -> LoraReport:
    """Write the best approximation of every change by factors of a smaller rank; bundled words stay as they are.

    Args:
        adapter: The adapter.
        out: The file to write, which must be new.
        rank: The largest rank of a module. Either this or `keep` must be given.
        keep: The part of ‖ΔW‖² (the squared Frobenius norm) to keep, above 0 and at most 1; each module gets the
            smallest rank that does. 0.99 leaves an error of at most 10 % of the norm.
        naming: The names of the tensors, "kohya" or "diffusers".
        dtype: "f32", "f16" or "bf16"; None for the type of the input.
        weights: Reads the base model's weights; needed for changes without factors.

    Raises:
        AdapterError: The file cannot contain a change.
        RequestError: A setting is out of range.
        InputError: `out` exists.
    """
    check_size(rank, keep)
    check_choice("naming", naming, NAMINGS)
    check_choice("dtype", dtype or "f32", DTYPES)
    check_new(out)
    require_lora(adapter, naming, weights)
    factors = {
        module: _resized(adapter, module, rank or LARGEST_RANK, keep or 1.0, weights) for module in adapter.deltas
    }

    settings = {"rank": rank, "keep": keep}
    made_by: dict[str, Any] = {
        "tool": "resize",
        **{name: value for name, value in settings.items() if value is not None},
        "inputs": [{"name": adapter.name, "sha256": adapter.sha256}],
    }
    before = adapter.metadata.get("ss_network_dim", "None")
    new = "Dynamic" if keep is not None or rank is None else str(rank)
    comment = f"dimension is resized from {before} to {new}" if before != "None" else None
    metadata = rewritten_metadata(adapter.metadata, out.stem, comment, made_by)
    kind = dtype or common_dtype([adapter])
    return write_lora(out, factors, adapter.base_model, naming, kind, metadata, words=words_of([adapter]))


def _resized(adapter: Adapter, module: Module, rank: int, keep: float, weights: WeightReader | None) -> LowRank:
    if pair := factors_of(adapter, module):
        return recompress([pair], rank, keep)
    return factorise(dense_change(adapter, module, weights), rank, keep)

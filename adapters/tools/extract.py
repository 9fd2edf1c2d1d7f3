"""The difference of two models as a LoRA."""

import hashlib
from pathlib import Path

import numpy as np

from lorablend.adapters.errors import AdapterError, BaseModelError
from lorablend.adapters.files.checkpoint import CheckpointFile, read_checkpoint
from lorablend.adapters.files.provenance import merged_metadata
from lorablend.adapters.files.write import DTYPES, check_new
from lorablend.adapters.names.modules import find_module
from lorablend.adapters.names.naming import NAMINGS, Naming
from lorablend.adapters.tools.changes import BlockProgress, Module, by_block
from lorablend.adapters.tools.lora_file import LARGEST_RANK, LoraReport, check_choice, check_size, write_lora
from lorablend.adapters.tools.low_rank import LowRank, factorise
from lorablend.adapters.wording import shown

__all__ = ["extract"]


def extract(
    base: Path,
    tuned: Path,
    out: Path,
    *,
    rank: int | None = None,
    keep: float | None = None,
    naming: Naming = "kohya",
    dtype: str = "f16",
    progress: BlockProgress | None = None,
) -> LoraReport:
    """Write what `tuned` has over `base` as a LoRA to `out`, a new file.

    base, tuned: diffusers folders or .safetensors checkpoints, in any mixture; memory holds one weight at a time.
    Every linear layer and convolution of the UNet and the text encoders that differs gets the best factors of at most
    `rank`, and with `keep`, above 0 to 1, the smallest rank that keeps this part of ‖difference‖²; one of the two has
    to be given. What differs and is no such layer (norms, biases, embeddings) is listed in the report's `left_out`.
    progress: called with (block, blocks done, blocks in all).

    Raises ModelError and AdapterError for models that cannot be read, BaseModelError for models of two kinds or without
    a difference, RequestError for a setting out of range, InputError where `out` exists.
    """
    check_size(rank, keep)
    check_choice("naming", naming, NAMINGS)
    check_choice("dtype", dtype, DTYPES)
    check_new(out)
    models = read_checkpoint(base), read_checkpoint(tuned)
    if models[0].base_model != models[1].base_model:
        names = " and ".join(f"{shown(model.path.name)} is for {model.base_model}" for model in models)
        raise BaseModelError(f"{names}; give two models of one kind")

    factors, left_out = _factors(*models, rank or LARGEST_RANK, keep or 1.0, progress)
    made_by = {
        "tool": "extract",
        **({} if rank is None else {"rank": rank}),
        **({} if keep is None else {"keep": keep}),
        "inputs": [
            {"name": model.path.name, "weight": weight, "sha256": _sha256(model)}
            for model, weight in zip(models, (-1, 1), strict=True)
        ],
    }
    metadata = merged_metadata([], models[0].base_model, out.stem, made_by)
    return write_lora(out, factors, models[0].base_model, naming, dtype, metadata, left_out)


def _factors(
    base: CheckpointFile, tuned: CheckpointFile, rank: int, keep: float, progress: BlockProgress | None
) -> tuple[dict[Module, LowRank], tuple[str, ...]]:
    factors: dict[Module, LowRank] = {}
    left_out: list[str] = []
    shared = [key for key in tuned.parts if key in base.parts]
    left_out += [f"{' '.join(key)} is in {shown(tuned.path.name)} alone" for key in tuned.parts.keys() - base.parts]
    left_out += [f"{' '.join(key)} is in {shown(base.path.name)} alone" for key in base.parts.keys() - tuned.parts]
    for component, name in by_block(shared, progress):
        one, other = base.parts[component, name], tuned.parts[component, name]
        if _without_ones(one.shape) != _without_ones(other.shape):
            sizes = ["×".join(map(str, part.shape)) for part in (one, other)]
            left_out.append(f"{component} {name} is {sizes[0]} in {shown(base.path.name)}, {sizes[1]} in the other")
            continue
        after = other.read().astype(np.float32, copy=False)
        change = after - one.read().astype(np.float32, copy=False).reshape(after.shape)
        if not np.isfinite(change).all():
            raise AdapterError(f"{component} {name} contains NaN or infinity; the model is of no use")
        if not change.any():
            continue
        path = name.removesuffix(".weight")
        layer = change.ndim in (2, 4) and path != name and find_module(component, path)
        if layer and ".embeddings." not in path:
            factors[component, path] = factorise(change, rank, keep)
        else:
            left_out.append(f"{component} {name} differs, but is no layer that a LoRA can change")
    return factors, tuple(sorted(left_out))


def _sha256(model: CheckpointFile) -> list[str]:
    return [hashlib.sha256(file.buffer).hexdigest() for file in model.files]


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A linear layer and a 1×1 convolution are the same thing."""
    return shape[:2] if shape[2:] == (1, 1) else shape

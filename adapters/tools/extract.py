"""Extract the difference between two models as a LoRA."""

import hashlib
from pathlib import Path

import numpy as np

from lorablend.adapters.algorithms.checks import without_ones
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
    """Write the difference `tuned` − `base` as a LoRA.

    Every linear layer and convolution of the UNet and the text encoders that differs gets the best factors of the given
    size. Other differences (norms, biases, embeddings) are listed in the report's `left_out`. Only one weight at a time
    is in memory.

    Args:
        base: A diffusers folder or a .safetensors checkpoint.
        tuned: The same; the two may be in different formats.
        out: The file to write, which must be new.
        rank: The largest rank of a module. Either this or `keep` must be given.
        keep: The part of ‖difference‖² to keep, above 0 and at most 1; each module gets the smallest rank that does.
        naming: The names of the tensors, "kohya" or "diffusers".
        dtype: "f32", "f16" or "bf16".
        progress: Called with (block, blocks done, number of blocks).

    Raises:
        ModelError: A path is not a model.
        AdapterError: A file is broken, or the models do not differ.
        BaseModelError: The models are of different kinds.
        RequestError: A setting is out of range.
        InputError: `out` exists.
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
    left_out += [f"{' '.join(key)} is only in {shown(tuned.path.name)}" for key in tuned.parts.keys() - base.parts]
    left_out += [f"{' '.join(key)} is only in {shown(base.path.name)}" for key in base.parts.keys() - tuned.parts]
    for component, name in by_block(shared, progress):
        before, after = base.parts[component, name], tuned.parts[component, name]
        if without_ones(before.shape) != without_ones(after.shape):
            sizes = ["×".join(map(str, part.shape)) for part in (before, after)]
            left_out.append(f"{component} {name} is {sizes[0]} in {shown(base.path.name)}, {sizes[1]} in the other")
            continue
        new = after.read().astype(np.float32, copy=False)
        change = new - before.read().astype(np.float32, copy=False).reshape(new.shape)
        if not np.isfinite(change).all():
            raise AdapterError(f"{component} {name} contains NaN or infinity; the model is unusable")
        if not change.any():
            continue
        path = name.removesuffix(".weight")
        layer = change.ndim in (2, 4) and path != name and find_module(component, path)
        if layer and ".embeddings." not in path:
            factors[component, path] = factorise(change, rank, keep)
        else:
            left_out.append(f"{component} {name} differs, but is not a layer that a LoRA can change")
    return factors, tuple(sorted(left_out))


def _sha256(model: CheckpointFile) -> list[str]:
    return [hashlib.sha256(file.buffer).hexdigest() for file in model.files]

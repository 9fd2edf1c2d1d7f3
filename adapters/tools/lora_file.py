"""Write factors as a LoRA file with kohya's or diffusers' names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lorablend.adapters.adapter import Adapter
from lorablend.adapters.errors import AdapterError, BaseModelError, RequestError
from lorablend.adapters.files.provenance import network_metadata, with_hashes
from lorablend.adapters.files.write import Stored, stored, write_file
from lorablend.adapters.names.naming import Naming, is_convolution, module_name
from lorablend.adapters.tools.low_rank import LowRank
from lorablend.adapters.wording import shown

__all__ = [
    "LARGEST_RANK",
    "LoraReport",
    "check_choice",
    "check_rank",
    "check_size",
    "common_base",
    "common_dtype",
    "lora_tensors",
    "write_lora",
]

_SUFFIXES: dict[Naming, tuple[str, str]] = {
    "kohya": (".lora_down.weight", ".lora_up.weight"),
    "diffusers": (".lora_A.weight", ".lora_B.weight"),
}
LARGEST_RANK = 4096


@dataclass(frozen=True)
class LoraReport:
    """What a tool wrote.

    Attributes:
        path: The file.
        dtype: The type of its numbers: "f32", "f16" or "bf16".
        ranks: The rank of each module, by (component, module path).
        errors: ‖ΔW − written ΔW‖ / ‖ΔW‖ of each module in the Frobenius norm, before the rounding to `dtype`.
        left_out: Sentences about what a LoRA file cannot contain.
    """

    path: Path
    dtype: str
    ranks: Mapping[tuple[str, str], int]
    errors: Mapping[tuple[str, str], float]
    left_out: tuple[str, ...] = ()

    @property
    def worst(self) -> float:
        """The largest error of a module."""
        return max(self.errors.values())

    @property
    def mean(self) -> float:
        """The mean error of the modules."""
        return float(np.mean(list(self.errors.values())))

    def to_json(self) -> dict[str, Any]:
        """Return plain data: numbers, text, lists and dicts."""
        modules = [
            {"component": component, "module": path, "rank": rank, "error": self.errors[component, path]}
            for (component, path), rank in self.ranks.items()
        ]
        return {
            "file": str(self.path),
            "dtype": self.dtype,
            "worst_error": self.worst,
            "mean_error": self.mean,
            "modules": modules,
            "left_out": list(self.left_out),
        }


def check_rank(rank: int) -> None:
    """Raise RequestError for a rank out of range."""
    if not 1 <= rank <= LARGEST_RANK:
        raise RequestError(f"rank is {rank}; give 1 to {LARGEST_RANK}")


def check_size(rank: int | None, keep: float | None) -> None:
    """Raise RequestError unless a rank, a part of ‖ΔW‖² to keep (above 0 and at most 1), or both are given."""
    if rank is None and keep is None:
        raise RequestError("neither a rank nor a part to keep; give one of them, or both")
    if rank is not None:
        check_rank(rank)
    if keep is not None and not 0 < keep <= 1:
        raise RequestError(f"the part to keep is {keep:g}; give a number above 0 and at most 1")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise RequestError for a word that is not one of the choices."""
    if value not in (known := list(choices)):
        raise RequestError(f"{name} is {shown(value)}; give {', '.join(known[:-1])} or {known[-1]}")


def common_base(adapters: Iterable[Adapter]) -> str:
    """Return the base model that all adapters are for, except those for an unknown one.

    Raises BaseModelError if they are for different base models.
    """
    known = [adapter for adapter in adapters if adapter.base_model != "unknown"]
    for adapter in known[1:]:
        if adapter.base_model != known[0].base_model:
            raise BaseModelError(
                f"{shown(known[0].name)} is for {known[0].base_model}, {shown(adapter.name)} is for "
                f"{adapter.base_model}; give adapters for one base model"
            )
    return known[0].base_model if known else "unknown"


def common_dtype(adapters: Iterable[Adapter]) -> str:
    """Return the narrowest of "f16", "bf16" and "f32" that can represent the numbers of all adapters."""
    names = {"f16" if delta.dtype == "fp8" else delta.dtype for each in adapters for delta in each.deltas.values()}
    return names.pop() if len(names) == 1 else "f32"


def lora_tensors(
    factors: Mapping[tuple[str, str], LowRank], base: str, naming: Naming, dtype: str
) -> dict[str, Stored]:
    """Return the tensors of a file with these factors and alpha = rank, in the shapes that programs expect.

    Raises AdapterError for a module that the names cannot express.
    """
    down_name, up_name = _SUFFIXES[naming]
    tensors: dict[str, Stored] = {}
    for (component, path), (down, up, _) in factors.items():
        try:
            name = module_name(component, path, base, naming)
        except AdapterError as error:
            raise AdapterError(f"{error.message}; use diffusers' names") from error
        if naming == "diffusers" and ".embeddings." in path:
            raise AdapterError(f"{component} {path}: diffusers has no name for it; use kohya's names")
        if down.ndim == 2 and component == "unet" and is_convolution(path, base):
            down = down[:, :, None, None]
        kernel = (1,) * (down.ndim - 2)
        tensors[name + down_name] = stored(down, dtype, name + down_name)
        tensors[name + up_name] = stored(up.reshape(*up.shape, *kernel), dtype, name + up_name)
        if naming == "kohya":
            tensors[f"{name}.alpha"] = "F32", np.float32(len(down)).reshape(())
    return tensors


def write_lora(
    path: Path,
    factors: Mapping[tuple[str, str], LowRank],
    base: str,
    naming: Naming,
    dtype: str,
    metadata: Mapping[str, str],
    left_out: tuple[str, ...] = (),
    words: Mapping[str, Stored] | None = None,
) -> LoraReport:
    """Write factors as a LoRA file, without modules of rank 0. Raises AdapterError if nothing remains.

    `words` are tensors of bundled words, which are written as they are.
    """
    factors = {module: pair for module, pair in factors.items() if len(pair.down)}
    if not factors:
        raise AdapterError(f"{shown(path.name)}: nothing to write, because every change is zero")
    ranks: dict[bool, set[int]] = {}
    for down, _, _ in factors.values():
        ranks.setdefault(down.shape[2:] not in ((), (1, 1)), set()).add(len(down))
    tensors = {**lora_tensors(factors, base, naming, dtype), **(words or {})}
    write_file(path, tensors, with_hashes({**metadata, **network_metadata(ranks)}, tensors))
    return LoraReport(
        path,
        dtype,
        {module: len(pair.down) for module, pair in factors.items()},
        {module: pair.error for module, pair in factors.items()},
        left_out,
    )

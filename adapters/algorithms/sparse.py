"""The sparse residual of LyCORIS' extraction (`lycoris/utils/__init__.py`, `use_bias`): what up · down leaves out.

`.bias_indices` [2, n], `.bias_values` [n] and `.bias_size` [2] are a sparse matrix S [out, in · kernel]. Despite the
names it belongs to the weight: ΔW = alpha / rank · (up · down + S).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lorablend.adapters.algorithms.bases import WrappedDelta
from lorablend.adapters.algorithms.checks import (
    check_floats,
    check_roles,
    dtype_of,
    require_finite,
    require_fit,
)
from lorablend.adapters.algorithms.delta import Delta
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor
from lorablend.adapters.wording import shown

__all__ = ["RESIDUAL_ROLES", "ResidualDelta", "add_residual"]

RESIDUAL_ROLES = frozenset({"bias_indices", "bias_values", "bias_size"})


@dataclass(frozen=True, eq=False)
class ResidualDelta(WrappedDelta):
    """The `Delta` of a LoRA with a sparse residual."""

    indices: Tensor
    values: Tensor
    rows: int
    columns: int

    @property
    def dtype(self) -> str:
        return self.inner.dtype if dtype_of([self.values]) == self.inner.dtype else "f32"

    def fits(self, shape: tuple[int, ...]) -> bool:
        return self.inner.fits(shape) and shape[0] == self.rows and math.prod(shape[1:]) == self.columns

    def dense(self, weight: np.ndarray) -> np.ndarray:
        require_fit(self.module, self.fits(weight.shape), self.made_for, weight.shape)
        change = self.inner.dense(weight).reshape(self.rows, self.columns)
        row, column = self.indices.array.astype(np.int64)
        with np.errstate(over="ignore", invalid="ignore"):
            np.add.at(change, (row, column), self.values.float32() * np.float32(self.scale))
        require_finite(self.module, change)
        return change.reshape(weight.shape)


def add_residual(module: str, delta: Delta | None, roles: Mapping[str, Tensor]) -> ResidualDelta:
    """Add the residual in `roles` to the delta of the module's other tensors. Raises AdapterError."""
    check_roles(module, roles, sorted(RESIDUAL_ROLES))
    indices, values, size = (roles[role] for role in ("bias_indices", "bias_values", "bias_size"))
    if delta is None or delta.algorithm != "lora":
        raise AdapterError(f"{module}: {shown(values.name)} belongs to a LoRA, but there is none")
    check_floats(values)
    for tensor in (indices, size):
        if tensor.dtype not in ("I16", "I32", "I64"):
            raise AdapterError(f"tensor {shown(tensor.name)} is {tensor.dtype}; expected whole numbers")
    if len(values.shape) != 1 or indices.shape != (2, values.count) or size.shape != (2,):
        shapes = " and ".join(str(list(tensor.shape)) for tensor in (indices, values, size))
        raise AdapterError(f"{module}: the sparse residual has shapes {shapes}; expected [2, n], [n] and [2]")
    limits = [int(limit) for limit in size.array]
    for axis, limit in enumerate(limits):
        along = indices.array[axis]
        if values.count and not 0 <= int(along.min()) <= int(along.max()) < limit:
            raise AdapterError(
                f"tensor {shown(indices.name)} has indices from {along.min()} to {along.max()}, but the size is {limit}"
            )
    return ResidualDelta(module, delta, indices, values, *limits)

"""LoHa: ΔW = alpha / rank · (w1_a · w1_b) ∘ (w2_a · w2_b), elementwise (FedPara, https://arxiv.org/abs/2108.06098).

In the Tucker form (LyCORIS' "cp") each half has its own core t, w·_a is [rank, out] and w·_b [rank, in]:
half[p, q, y, x] = Σ t[i, j, y, x] · w_a[i, p] · w_b[j, q].
"""

from collections.abc import Mapping

import numpy as np

from lorablend.adapters.algorithms.checks import check_roles, sizes
from lorablend.adapters.algorithms.factored import (
    NUMBERS,
    Factored,
    FactoredDelta,
    check_shape,
    join_core,
    matrix,
    weight_shape,
)
from lorablend.adapters.algorithms.scale import ScaleSettings, scale_of
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor

__all__ = ["LohaDelta", "build_loha"]

_MATRICES = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_CORES = ("hada_t1", "hada_t2")


class LohaDelta(FactoredDelta):
    """The `Delta` of a LoHa.

    The rank of its factors is the product of both halves' ranks: (a · b) ∘ (c · d) is exactly the row-wise Khatri-Rao
    product of a and c times the column-wise Khatri-Rao product of b and d. The same holds for the Tucker form once its
    cores are contracted.
    """

    @property
    def algorithm(self) -> str:
        return "loha"

    def _half(self, number: int) -> Factored:
        rows, columns = (matrix(self.tensors[f"hada_w{number}_{side}"]) for side in "ab")
        if core := self.tensors.get(f"hada_t{number}"):
            return join_core(core, rows.T, columns)
        return Factored(columns, rows)

    def _product(self, scale: float) -> np.ndarray:
        first, second = self._half(1), self._half(2)
        product = first.up @ first.down
        product *= second.up @ second.down
        product *= np.float32(scale)
        return product

    def _pair(self) -> tuple[np.ndarray, np.ndarray]:
        first, second = self._half(1), self._half(2)
        down = (first.down[:, None, :] * second.down[None, :, :]).reshape(self.pair_rank, -1)
        up = (first.up[:, :, None] * second.up[:, None, :]).reshape(-1, self.pair_rank)
        return down, up


def build_loha(module: str, path: str, roles: Mapping[str, Tensor], settings: ScaleSettings) -> LohaDelta | None:
    """Build the delta of one module from its tensors, checked against each other; None if the rank is 0.

    `module` is its name in messages. Raises AdapterError.
    """
    cores = _CORES if any(role in roles for role in _CORES) else ()
    check_roles(module, roles, (*_MATRICES, *cores), NUMBERS)
    tensors = {role: roles[role] for role in (*_MATRICES, *cores)}
    for role, tensor in tensors.items():
        check_shape(tensor, kernel=role.endswith("_b") and not cores, core=role in _CORES)
    halves = [_half_shape(module, number, tensors) for number in (1, 2)]
    if halves[0] != halves[1]:
        raise AdapterError(
            f"{module}: hada_w1 is for a weight of {sizes(halves[0])}, hada_w2 for one of {sizes(halves[1])}"
        )
    if not all(tensor.count for tensor in tensors.values()):
        return None
    shape = weight_shape(module, path, halves[0][0], halves[0])
    rank = tensors["hada_w1_b"].shape[0]
    ranks = [tensors[f"hada_w{number}_a"].shape[0 if cores else 1] for number in (1, 2)]
    return LohaDelta(module, shape, rank, ranks[0] * ranks[1], scale_of(module, path, roles, rank, settings), tensors)


def _half_shape(module: str, number: int, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return the shape of one half: [out, in · kernel], or with the kernel's dimensions if the tensors tell them."""
    rows, columns = (tensors[f"hada_w{number}_{side}"].shape for side in "ab")
    core = tensors.get(f"hada_t{number}")
    if core:
        inner, ranks = core.shape[:2], (rows[0], columns[0])
        if inner != ranks:
            raise AdapterError(f"{module}: hada_t{number} is {sizes(inner)}, but the ranks are {sizes(ranks)}")
        return (rows[1], columns[1], *core.shape[2:])
    if rows[1] != columns[0]:
        raise AdapterError(f"{module}: hada_w{number}_a has rank {rows[1]}, hada_w{number}_b has rank {columns[0]}")
    return (rows[0], *columns[1:])

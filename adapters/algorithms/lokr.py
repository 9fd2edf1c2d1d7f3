"""LoKr: ΔW = alpha / rank · w1 ⊗ w2, a Kronecker product (LyCORIS, https://arxiv.org/abs/2309.14859).

w1 [out_l, in_m] is whole or w1_a · w1_b; w2 [out_k, in_n(, kernel)] is whole, or w2_a · w2_b, or in Tucker form with
the core t2 between them (then w2_a is [rank, out_k]). ΔW[i · out_k + k, j · in_n + n, …] = w1[i, j] · w2[k, n, …].
"""

from collections.abc import Collection, Mapping

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

__all__ = ["LokrDelta", "build_lokr"]


class LokrDelta(FactoredDelta):
    """The `Delta` of a LoKr.

    If w2 = a · b, it is live: with w1 = c · d (one of them the identity if w1 is whole), w1 ⊗ w2 is exactly
    (c ⊗ a) · (d ⊗ b), whose rank is the product of both ranks. With a whole w2 the factors would have as many rows as
    the module, so there are none.
    """

    @property
    def algorithm(self) -> str:
        return "lokr"

    def _first(self) -> Factored:
        """Return w1 as two factors, one of which may be the identity."""
        if "lokr_w1" not in self.tensors:
            return Factored(matrix(self.tensors["lokr_w1_b"]), matrix(self.tensors["lokr_w1_a"]))
        whole = matrix(self.tensors["lokr_w1"])
        rows, columns = whole.shape
        if rows < columns:
            return Factored(whole, np.eye(rows, dtype=np.float32))
        return Factored(np.eye(columns, dtype=np.float32), whole)

    def _second(self) -> Factored:
        rows, columns = matrix(self.tensors["lokr_w2_a"]), matrix(self.tensors["lokr_w2_b"])
        if core := self.tensors.get("lokr_t2"):
            return join_core(core, rows.T, columns)
        return Factored(columns, rows)

    def _product(self, scale: float) -> np.ndarray:
        if "lokr_w1" in self.tensors:
            left = matrix(self.tensors["lokr_w1"])
        else:
            left = matrix(self.tensors["lokr_w1_a"]) @ matrix(self.tensors["lokr_w1_b"])
        if "lokr_w2" in self.tensors:
            right = matrix(self.tensors["lokr_w2"])
        else:
            second = self._second()
            right = second.up @ second.down
        return _kronecker(left * np.float32(scale), right)

    def _pair(self) -> tuple[np.ndarray, np.ndarray]:
        first, second = self._first(), self._second()
        return _kronecker(first.down, second.down), _kronecker(first.up, second.up)


def _kronecker(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    product = left[:, None, :, None] * right[None, :, None, :]
    return product.reshape(len(left) * len(right), -1)


def build_lokr(module: str, path: str, roles: Mapping[str, Tensor], settings: ScaleSettings) -> LokrDelta | None:
    """Build the delta of one module from its tensors, checked against each other; None if the rank is 0.

    `module` is its name in messages. Raises AdapterError.
    """
    wanted = (*_wanted(roles, 1), *_wanted(roles, 2))
    check_roles(module, roles, wanted, NUMBERS)
    tensors = {role: roles[role] for role in wanted}
    for role, tensor in tensors.items():
        kernel = role == "lokr_w2" or (role == "lokr_w2_b" and "lokr_t2" not in roles)
        check_shape(tensor, kernel=kernel, core=role == "lokr_t2")
    rows, columns, first_rank = _side_shape(module, tensors, 1)
    more_rows, more_columns, second_rank = _side_shape(module, tensors, 2)
    if not all(tensor.count for tensor in tensors.values()):
        return None
    shape = weight_shape(module, path, rows * more_rows, (0, columns[0] * more_columns[0], *more_columns[1:]))
    pair_rank = (first_rank or min(rows, columns[0])) * (second_rank or 0)
    # As in ComfyUI and A1111. None if both are whole, because then nothing was divided by a rank.
    rank = next((tensors[role].shape[0] for role in ("lokr_w2_b", "lokr_w1_b") if role in tensors), None)
    return LokrDelta(module, shape, rank, pair_rank, scale_of(module, path, roles, rank, settings), tensors)


def _wanted(roles: Collection[str], number: int) -> tuple[str, ...]:
    """Return the roles of w1 or w2: the whole matrix, or its factors, in the case of w2 perhaps with a core."""
    whole, factors = f"lokr_w{number}", (f"lokr_w{number}_a", f"lokr_w{number}_b")
    if whole in roles or not any(role in roles for role in factors):
        return (whole,)
    return (*factors, "lokr_t2") if number == 2 and "lokr_t2" in roles else factors


def _side_shape(module: str, tensors: Mapping[str, Tensor], number: int) -> tuple[int, tuple[int, ...], int | None]:
    """Return (rows, columns with the kernel if the tensors tell it, rank or None) of w1 or w2."""
    if whole := tensors.get(f"lokr_w{number}"):
        return whole.shape[0], whole.shape[1:], None
    rows, columns = (tensors[f"lokr_w{number}_{side}"].shape for side in "ab")
    if number == 2 and (core := tensors.get("lokr_t2")):
        inner, ranks = core.shape[:2], (rows[0], columns[0])
        if inner != ranks:
            raise AdapterError(f"{module}: lokr_t2 is {sizes(inner)}, but the ranks are {sizes(ranks)}")
        return rows[1], (columns[1], *core.shape[2:]), rows[0]
    if rows[1] != columns[0]:
        raise AdapterError(f"{module}: lokr_w{number}_a has rank {rows[1]}, lokr_w{number}_b has rank {columns[0]}")
    return rows[0], columns[1:], columns[0]

"""What LoRA, LoHa and LoKr share: a change that is exactly scale · up · down, whatever the file stores."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lorablend.adapters.algorithms.bases import ScaledDelta
from lorablend.adapters.algorithms.checks import (
    check_floats,
    dtype_of,
    require_finite,
    require_fit,
    sizes,
    without_ones,
)
from lorablend.adapters.algorithms.delta import Gated, RawFactors
from lorablend.adapters.algorithms.scale import Scale
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor
from lorablend.adapters.names.modules import is_table, kernel_of
from lorablend.adapters.wording import shown

__all__ = ["NUMBERS", "Factored", "FactoredDelta", "check_shape", "join_core", "matrix", "weight_shape"]

NUMBERS = ("alpha", "scale", "scalar")  # roles that any of these modules may have

# Elements of a weight. The largest one in our models, a token embedding, has 6e7. A file that claims more is not an
# adapter for them, and its dense change would not fit into memory.
_LARGEST = 2**28


class Factored(NamedTuple):
    """A matrix up · down in float32: `down` [rank, columns], `up` [rows, rank]."""

    down: np.ndarray
    up: np.ndarray


@dataclass(frozen=True, eq=False)
class FactoredDelta(ScaledDelta, ABC):
    """The `Delta` of a module that has exact low-rank factors.

    If the factors had more rows than the weight itself, its live form is the change and an identity matrix.
    """

    module: str  # for messages: "unet mid_block.attentions.0.proj_in"
    shape: tuple[int, ...]  # of the weight that it was made for: [out, in] or [out, in, kernel height, kernel width]
    rank: int | None
    pair_rank: int  # of the factors that the tensors give; 0 if they give none
    scaling: Scale
    tensors: Mapping[str, Tensor]  # by role

    @property
    @abstractmethod
    def algorithm(self) -> str: ...

    @property
    def dtype(self) -> str:
        return dtype_of(self.tensors.values())

    @property
    def out_features(self) -> int:
        return self.shape[0]

    @property
    def in_features(self) -> int:
        return self.shape[1]

    @property
    def made_for(self) -> str:
        return sizes(self.shape)

    @property
    def live(self) -> str:
        return "factors" if self.pair_rank and not is_table(self.module) else ""

    @property
    def live_rank(self) -> int:
        return self._shortest_rank if self.live else 0

    def fits(self, shape: tuple[int, ...]) -> bool:
        return without_ones(self.shape) == without_ones(shape)

    def dense(self, weight: np.ndarray) -> np.ndarray:
        require_fit(self.module, self.fits(weight.shape), self.made_for, weight.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            change = self._product(self.scale)
        require_finite(self.module, change)
        return change.reshape(weight.shape)

    def factors(self) -> tuple[np.ndarray, np.ndarray] | None:
        if not self.pair_rank:
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            down, up = self._shortest_pair()
            if self.scale != 1:  # in place if it is a copy already: another copy would cost more than the product
                up = np.multiply(up, np.float32(self.scale), out=up if up.flags.writeable else None)
        require_finite(self.module, down, up)
        return self._with_kernel(down), up

    def raw_factors(self) -> RawFactors | None:
        if not self.live:
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            down, up = self._shortest_pair()
        require_finite(self.module, down, up)
        return RawFactors(self._with_kernel(down), up, self.scale)

    def gated(self, weight: np.ndarray) -> Gated | None:
        return None

    @abstractmethod
    def _product(self, scale: float) -> np.ndarray:
        """Return scale · up · down, in any shape with the elements in the right order."""

    @abstractmethod
    def _pair(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (down, up) in float32 without the scale: [pair rank, in · kernel], [out, pair rank]."""

    @property
    def _shortest_rank(self) -> int:
        """The rank of `_shortest_pair`."""
        return min(self.pair_rank, self.shape[0], math.prod(self.shape[1:]))

    def _shortest_pair(self) -> tuple[np.ndarray, np.ndarray]:
        """Return `_pair`, or the change itself and an identity matrix if they have fewer rows."""
        if self._shortest_rank == self.pair_rank:
            return self._pair()
        product = self._product(1.0).reshape(self.shape[0], -1)
        rows, columns = product.shape
        if rows <= columns:
            return product, np.eye(rows, dtype=np.float32)
        return np.eye(columns, dtype=np.float32), product

    def _with_kernel(self, down: np.ndarray) -> np.ndarray:
        """Return `down` as the socket takes it: with four dimensions only if the kernel is larger than 1×1."""
        return down.reshape(len(down), *without_ones(self.shape)[1:])


def matrix(tensor: Tensor) -> np.ndarray:
    """Return the values in float32, flattened from the second dimension on."""
    values = tensor.float32()
    return values.reshape(len(values), -1)


def join_core(core: Tensor, rows: np.ndarray, columns: np.ndarray) -> Factored:
    """Return a Tucker decomposition as two factors, with the core contracted into `columns`.

    ΔW[p, q, y, x] = Σ core[i, j, y, x] · rows[p, i] · columns[j, q]  (FedPara, https://arxiv.org/abs/2108.06098,
    proposition 3).
    """
    values = core.float32()
    return Factored(np.einsum("ijyx,jq->iqyx", values, columns, optimize=True).reshape(len(values), -1), rows)


def check_shape(tensor: Tensor, *, kernel: bool = False, core: bool = False) -> None:
    """Raise AdapterError unless the tensor has floats in 2 dimensions, or in 4 of which the last two are 1.

    kernel: the last two may be the size of a convolution's kernel. core: there must be 4.
    """
    check_floats(tensor)
    if core:
        right, expected = len(tensor.shape) == 4, "4 dimensions"
    elif kernel:
        right, expected = len(tensor.shape) in (2, 4), "2 or 4 dimensions"
    else:
        right, expected = len(tensor.shape) == 2 or tensor.shape[2:] == (1, 1), "a matrix"
    if not right:
        raise AdapterError(f"tensor {shown(tensor.name)} has shape {list(tensor.shape)}; expected {expected}")


def weight_shape(module: str, path: str, out: int, down: tuple[int, ...]) -> tuple[int, ...]:
    """Return the weight's shape from its number of rows and the shape of `down`: [rank, in · kernel] or 4 dimensions.

    Flattened columns are split if the module is known to be a k×k convolution. Raises AdapterError for an absurd size.
    """
    shape = (out, *down[1:])
    kernel = kernel_of(path)
    if len(shape) == 2 and kernel and shape[1] % math.prod(kernel) == 0:
        shape = (out, shape[1] // math.prod(kernel), *kernel)
    if math.prod(shape) > _LARGEST:
        raise AdapterError(f"{module}: made for a weight of {sizes(shape)}, which is more than {_LARGEST} elements")
    return shape

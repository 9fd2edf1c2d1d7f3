"""What every algorithm offers: the change that an adapter makes to one module's weight."""

from typing import NamedTuple, Protocol

import numpy as np

__all__ = ["Delta", "RawFactors"]


class RawFactors(NamedTuple):
    """Low-rank factors as they lie in the file, without a copy: ΔW = scale · up · down.

    `down` [rank, in] and `up` [out, rank] are float16 or float32, or for bfloat16 its bits as uint16: `Delta.dtype`
    says which.
    """

    down: np.ndarray
    up: np.ndarray
    scale: float


class Delta(Protocol):
    """The change of one module's weight at weight 1 of the adapter."""

    @property
    def algorithm(self) -> str:
        """ "lora"."""
        ...

    @property
    def dtype(self) -> str:
        """Of the raw factors: "f16", "bf16" or "f32"."""
        ...

    @property
    def rank(self) -> int:
        """Columns of up, rows of down."""
        ...

    @property
    def alpha(self) -> float | None:
        """As the file gives it; None where it gives none."""
        ...

    @property
    def scale(self) -> float:
        """What up · down is multiplied with: alpha / rank, or 1 without an alpha."""
        ...

    @property
    def kernel(self) -> tuple[int, ...]:
        """() for factors of a linear layer, (1, 1) for those of a 1×1 convolution."""
        ...

    @property
    def in_features(self) -> int:
        """Columns of down: the module's input width."""
        ...

    @property
    def out_features(self) -> int:
        """Rows of up: the module's output width."""
        ...

    def dense(self, weight: np.ndarray) -> np.ndarray:
        """ΔW for a base weight [out, in, …], in float32 and the same shape. AdapterError where the sizes differ."""
        ...

    def factors(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(down [rank, in], up [out, rank]) in float32 with ΔW = up · down, or None where no exact factors exist."""
        ...

    def raw_factors(self) -> RawFactors | None:
        """The same without conversion, or None."""
        ...

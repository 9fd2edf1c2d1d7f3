"""What every algorithm offers: the change that an adapter makes to one module's weight."""

from typing import NamedTuple, Protocol

import numpy as np

__all__ = ["BiasDelta", "Delta", "Gated", "RawFactors"]


class RawFactors(NamedTuple):
    """Low-rank factors as they lie in the file, without a copy where that is possible: ΔW = scale · up · down.

    `down` [rank, in] or [rank, in, kernel height, kernel width], `up` [out, rank]; float16 or float32, or for bfloat16
    its bits as uint16. Both have the same type.
    """

    down: np.ndarray
    up: np.ndarray
    scale: float


class Gated(NamedTuple):
    """ΔW = gate[:, None] · W + up · down, in float32: the form of what scales whole output channels.

    `gate` [out], 0 for a channel that keeps its scale; `down` and `up` as in `RawFactors`, None where nothing is added.
    """

    gate: np.ndarray
    down: np.ndarray | None
    up: np.ndarray | None


class Delta(Protocol):
    """The change of one module's weight at weight 1 of the adapter."""

    @property
    def algorithm(self) -> str:
        """ "lora", "loha", "lokr", "dora", "glora", "ia3", "oft", "boft", "full" or "norm"."""
        ...

    @property
    def dtype(self) -> str:
        """What the file holds: "f16", "bf16", "f32" or "fp8"."""
        ...

    @property
    def rank(self) -> int | None:
        """As trained (LoHa's factors() have its square); None for an algorithm without ranks."""
        ...

    @property
    def alpha(self) -> float | None:
        """As the file gives it; None where it gives none."""
        ...

    @property
    def scale(self) -> float:
        """What the trained change is multiplied with: alpha / rank, or 1 without an alpha."""
        ...

    @property
    def in_features(self) -> int | None:
        """The module's input width; None where the tensors do not tell."""
        ...

    @property
    def out_features(self) -> int | None:
        """The module's output width; None where the tensors do not tell."""
        ...

    @property
    def made_for(self) -> str:
        """The shape of the weight as far as the tensors tell it, for messages: "64×320×3×3", "320 outputs"."""
        ...

    @property
    def live(self) -> str:
        """ "factors": `raw_factors` is not None. "gate": `gated` is not None. "": neither, so it has to be baked."""
        ...

    @property
    def live_rank(self) -> int:
        """Rows of down in the live form, known without computing it; 0 where there is none."""
        ...

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Can it change a weight of this shape? A linear layer and a 1×1 convolution count as the same."""
        ...

    def dense(self, weight: np.ndarray) -> np.ndarray:
        """ΔW for a float32 base weight, in float32 and the same shape. AdapterError where it does not fit."""
        ...

    def factors(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(down, up) in float32 with the scale folded in, ΔW = up · down, shapes as in `RawFactors`.

        None where no exact factors exist.
        """
        ...

    def raw_factors(self) -> RawFactors | None:
        """The same without conversion, or None."""
        ...

    def gated(self, weight: np.ndarray) -> Gated | None:
        """The gated form for a float32 base weight, or None where there is none."""
        ...


class BiasDelta(Protocol):
    """The change of one module's bias at weight 1 of the adapter."""

    @property
    def out_features(self) -> int:
        """Length of the bias."""
        ...

    def dense(self, bias: np.ndarray) -> np.ndarray:
        """Δbias [out] in float32 for a float32 base bias. AdapterError where the lengths differ."""
        ...

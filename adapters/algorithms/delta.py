"""The interface of all algorithms: the change that an adapter makes to one module's weight."""

from typing import NamedTuple, Protocol

import numpy as np

__all__ = ["BiasDelta", "Delta", "Gated", "RawFactors"]


class RawFactors(NamedTuple):
    """Low-rank factors as they are in the file, without copying if possible: ΔW = scale · up · down.

    Both arrays have the same type: float16, float32, or uint16 with the bits of bfloat16.

    Attributes:
        down: [rank, in] or [rank, in, kernel height, kernel width].
        up: [out, rank].
        scale: What up · down is multiplied by.
    """

    down: np.ndarray
    up: np.ndarray
    scale: float


class Gated(NamedTuple):
    """A change that scales whole output channels of the base weight W: ΔW = gate[:, None] · W + up · down, in float32.

    Attributes:
        gate: [out]; 0 for a channel that keeps its scale.
        down: Shaped as in `RawFactors`; None if nothing is added.
        up: Shaped as in `RawFactors`; None if nothing is added.
    """

    gate: np.ndarray
    down: np.ndarray | None
    up: np.ndarray | None


class Delta(Protocol):
    """The change of one module's weight, for an adapter at weight 1."""

    @property
    def algorithm(self) -> str:
        """The algorithm: "lora", "loha", "lokr", "dora", "glora", "ia3", "oft", "boft", "full" or "norm"."""
        ...

    @property
    def dtype(self) -> str:
        """The type of the numbers in the file: "f16", "bf16", "f32" or "fp8"."""
        ...

    @property
    def rank(self) -> int | None:
        """The rank as trained (`factors` of a LoHa have its square); None for an algorithm without ranks."""
        ...

    @property
    def alpha(self) -> float | None:
        """The alpha that the file gives; None if it gives none."""
        ...

    @property
    def scale(self) -> float:
        """What the trained change is multiplied by: alpha / rank, or 1 without an alpha."""
        ...

    @property
    def in_features(self) -> int | None:
        """The module's input width; None if the tensors do not tell."""
        ...

    @property
    def out_features(self) -> int | None:
        """The module's output width; None if the tensors do not tell."""
        ...

    @property
    def made_for(self) -> str:
        """The weight's shape for messages, as far as the tensors tell it: "64×320×3×3", "320 outputs"."""
        ...

    @property
    def live(self) -> str:
        """The live form: "factors" (from `raw_factors`), "gate" (from `gated`), or "" if it must be baked."""
        ...

    @property
    def live_rank(self) -> int:
        """The number of rows of `down` in the live form, known without computing it; 0 if there is no `down`."""
        ...

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether it can change a weight of this shape; a linear layer and a 1×1 convolution are the same."""
        ...

    def dense(self, weight: np.ndarray) -> np.ndarray:
        """Compute ΔW.

        Args:
            weight: The base weight, float32.

        Returns:
            ΔW in float32, in the shape of the base weight.

        Raises:
            AdapterError: The change does not fit the weight, or overflows float32.
        """
        ...

    def factors(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Compute exact low-rank factors with the scale folded in: ΔW = up · down.

        Returns:
            (down, up) in float32, shaped as in `RawFactors`; None if there are no exact factors.

        Raises:
            AdapterError: The factors overflow float32.
        """
        ...

    def raw_factors(self) -> RawFactors | None:
        """Return the factors without conversion, or None if the live form is not "factors"."""
        ...

    def gated(self, weight: np.ndarray) -> Gated | None:
        """Compute the gated form for a float32 base weight; None if the live form is not "gate"."""
        ...


class BiasDelta(Protocol):
    """The change of one module's bias, for an adapter at weight 1."""

    @property
    def out_features(self) -> int:
        """The length of the bias."""
        ...

    def dense(self, bias: np.ndarray) -> np.ndarray:
        """Compute Δbias.

        Args:
            bias: The base bias, float32 [out].

        Returns:
            Δbias, float32 [out].

        Raises:
            AdapterError: The lengths differ, or the change overflows float32.
        """
        ...

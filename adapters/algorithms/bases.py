"""What deltas of several algorithms have in common: answers that are the same for all of them."""

from dataclasses import dataclass

import numpy as np

from lorablend.adapters.algorithms.delta import Delta, Gated, RawFactors
from lorablend.adapters.algorithms.scale import Scale

__all__ = ["BakedDelta", "ScaledDelta", "WrappedDelta"]


class BakedDelta:
    """A `Delta` without a rank and without a live form. Subclasses add at least `made_for`, `fits` and `dense`."""

    module: str  # for messages: "unet mid_block.attentions.0.proj_in"

    @property
    def rank(self) -> int | None:
        return None

    @property
    def alpha(self) -> float | None:
        return None

    @property
    def scale(self) -> float:
        return 1.0

    @property
    def in_features(self) -> int | None:
        return None

    @property
    def out_features(self) -> int | None:
        return None

    @property
    def live(self) -> str:
        return ""

    @property
    def live_rank(self) -> int:
        return 0

    def factors(self) -> tuple[np.ndarray, np.ndarray] | None:
        return None

    def raw_factors(self) -> RawFactors | None:
        return None

    def gated(self, weight: np.ndarray) -> Gated | None:
        return None


class ScaledDelta:
    """The part of a `Delta` that its `scaling` answers. Goes before `BakedDelta` in a list of base classes."""

    scaling: Scale

    @property
    def alpha(self) -> float | None:
        return self.scaling.alpha

    @property
    def scale(self) -> float:
        return self.scaling.factor


@dataclass(frozen=True, eq=False)
class WrappedDelta(BakedDelta):
    """A `Delta` that changes what another one computes; its sizes and numbers are those of the inner delta."""

    module: str
    inner: Delta

    @property
    def algorithm(self) -> str:
        return self.inner.algorithm

    @property
    def dtype(self) -> str:
        return self.inner.dtype

    @property
    def rank(self) -> int | None:
        return self.inner.rank

    @property
    def alpha(self) -> float | None:
        return self.inner.alpha

    @property
    def scale(self) -> float:
        return self.inner.scale

    @property
    def in_features(self) -> int | None:
        return self.inner.in_features

    @property
    def out_features(self) -> int | None:
        return self.inner.out_features

    @property
    def made_for(self) -> str:
        return self.inner.made_for

    def fits(self, shape: tuple[int, ...]) -> bool:
        return self.inner.fits(shape)

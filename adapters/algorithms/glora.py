"""GLoRA: ΔW = alpha / rank · (up · down + (W · a) · b), the second part built on the base weight itself.

https://arxiv.org/abs/2306.07967, as LyCORIS trains it (`lycoris/modules/glora.py`): b1 [out, r], b2 [r, in, k, k],
a1 [in, r], a2 [r, in]. In its first files, the tensors of each pair are swapped: b2 · b1 and (W · a2) · a1. A
convolution may have a Tucker core between up and down, `bm` [r, r, k, k].

W · a has as few columns as a. So on linear layers and 1×1 convolutions the change has a rank of exactly 2r once the
base weight is known, and is live. On a k×k convolution, W · a has the kernel on the wrong side, which would take r·k²
more rows, so the change is baked.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lorablend.adapters.algorithms.bases import BakedDelta, ScaledDelta
from lorablend.adapters.algorithms.checks import (
    check_floats,
    check_roles,
    dtype_of,
    require_finite,
    require_fit,
    sizes,
    without_ones,
)
from lorablend.adapters.algorithms.delta import Gated
from lorablend.adapters.algorithms.factored import NUMBERS, matrix
from lorablend.adapters.algorithms.scale import Scale, ScaleSettings, scale_of
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor
from lorablend.adapters.wording import shown

__all__ = ["GloraDelta", "build_glora"]


@dataclass(frozen=True, eq=False)
class GloraDelta(ScaledDelta, BakedDelta):
    """The `Delta` of a GLoRA: ΔW = scale · (up · core · down + W · into · back)."""

    module: str
    into: Tensor  # [in, r]
    back: Tensor  # [r, in]
    up: Tensor  # [out, r]
    down: Tensor  # [r, in, k, k]
    core: Tensor | None  # [r, r, k, k]
    scaling: Scale
    algorithm: str = "glora"

    @property
    def dtype(self) -> str:
        return dtype_of([self.into, self.back, self.up, self.down, *([self.core] if self.core else [])])

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def in_features(self) -> int:
        return self.down.shape[1]

    @property
    def out_features(self) -> int:
        return self.up.shape[0]

    @property
    def made_for(self) -> str:
        return sizes(self._shape)

    @property
    def live(self) -> str:
        return "gate" if set(self._shape[2:]) <= {1} else ""

    @property
    def live_rank(self) -> int:
        return 2 * self.rank if self.live else 0

    def fits(self, shape: tuple[int, ...]) -> bool:
        return without_ones(self._shape) == without_ones(shape)

    def dense(self, weight: np.ndarray) -> np.ndarray:
        require_fit(self.module, self.fits(weight.shape), self.made_for, weight.shape)
        base = weight.reshape(self.out_features, self.in_features, -1).swapaxes(1, 2)  # inputs last
        with np.errstate(over="ignore", invalid="ignore"):
            change = matrix(self.up) @ self._down().reshape(self.rank, -1)
            through = ((base @ matrix(self.into)) @ matrix(self.back)).swapaxes(1, 2)
            change += through.reshape(change.shape)
            change *= np.float32(self.scale)
        require_finite(self.module, change)
        return change.reshape(weight.shape)

    def gated(self, weight: np.ndarray) -> Gated | None:
        if not self.live:
            return None
        require_fit(self.module, self.fits(weight.shape), self.made_for, weight.shape)
        base = weight.reshape(self.out_features, self.in_features)
        with np.errstate(over="ignore", invalid="ignore"):
            down = np.concatenate([self._down().reshape(self.rank, -1), matrix(self.back)])
            up = np.concatenate([matrix(self.up), base @ matrix(self.into)], axis=1)
            up *= np.float32(self.scale)
        require_finite(self.module, up)
        return Gated(np.zeros(self.out_features, np.float32), down, up)

    @property
    def _shape(self) -> tuple[int, ...]:
        kernel = (self.core or self.down).shape[2:]
        return (self.out_features, self.in_features, *kernel)

    def _down(self) -> np.ndarray:
        """Return `down` with the core contracted into it, [r, in, k, k]."""
        if self.core is None:
            return self.down.float32()
        return np.einsum("mnyx,ni->miyx", self.core.float32(), matrix(self.down), optimize=True)


def build_glora(module: str, path: str, roles: Mapping[str, Tensor], settings: ScaleSettings) -> GloraDelta | None:
    """Build the delta of one module from "a1", "a2", "b1", "b2" and perhaps "bm"; None if the rank is 0.

    Raises AdapterError.
    """
    check_roles(module, roles, ["a1", "a2", "b1", "b2"], ["bm", *NUMBERS])
    a1, a2, b1, b2 = (roles[role] for role in ("a1", "a2", "b1", "b2"))
    core = roles.get("bm")
    check_floats(a1, a2, b1, b2, core)
    for tensor in (a1, a2, b1, b2, core):
        if tensor and (len(tensor.shape) not in (2, 4) or (tensor is core and len(tensor.shape) != 4)):
            raise AdapterError(
                f"tensor {shown(tensor.name)} has shape {list(tensor.shape)}; "
                f"expected {'4' if tensor is core else '2 or 4'} dimensions"
            )
    old = a1.shape[0] == a2.shape[1] == b1.shape[0] == b2.shape[1]
    new = a1.shape[1] == a2.shape[0] == b1.shape[1] == b2.shape[0]
    if not old and not new:
        shapes = ", ".join(f"{role} {sizes(roles[role].shape)}" for role in ("a1", "a2", "b1", "b2"))
        raise AdapterError(f"{module}: there is no common rank of {shapes}")
    if old and new:  # all are n×m or m×n, for a square weight: the rank is not larger than the weight's width
        old = a1.shape[0] <= a1.shape[1]
    into, back, up, down = (a2, a1, b2, b1) if old else (a1, a2, b1, b2)
    rank = down.shape[0]
    if not all(tensor.count for tensor in (into, back, up, down)):
        return None
    _check(module, rank, into, back, up, down, core)
    return GloraDelta(module, into, back, up, down, core, scale_of(module, path, roles, rank, settings))


def _check(module: str, rank: int, into: Tensor, back: Tensor, up: Tensor, down: Tensor, core: Tensor | None) -> None:
    for tensor in (into, back, up, *([down] if core else [])):
        if not set(tensor.shape[2:]) <= {1}:
            raise AdapterError(f"tensor {shown(tensor.name)} has shape {list(tensor.shape)}; expected no kernel")
    if not into.shape[0] == back.shape[1] == down.shape[1]:
        widths = f"{into.shape[0]}, {back.shape[1]} and {down.shape[1]}"
        raise AdapterError(f"{module}: the factors have {widths} inputs; expected three equal numbers")
    if core and core.shape[:2] != (rank, rank):
        raise AdapterError(f"{module}: bm is {sizes(core.shape)}, but the factors have rank {rank}")

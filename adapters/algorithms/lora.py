"""LoRA and LoCon: ΔW = alpha / rank · up · down (https://arxiv.org/abs/2106.09685).

On a convolution, `down` has the kernel and `up` is 1×1 (LoCon). In LyCORIS' Tucker form, `down` is 1×1 too and `mid`
[m, n, kernel height, kernel width] comes between them: ΔW = alpha / n · Σ up[·, m] · mid[m, n, …] · down[n, ·].
"""

from collections.abc import Mapping

import numpy as np

from lorablend.adapters.algorithms.checks import check_roles, sizes
from lorablend.adapters.algorithms.delta import RawFactors
from lorablend.adapters.algorithms.factored import NUMBERS, FactoredDelta, check_shape, join_core, matrix, weight_shape
from lorablend.adapters.algorithms.scale import ScaleSettings, scale_of
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor

__all__ = ["LoraDelta", "build_lora"]


class LoraDelta(FactoredDelta):
    """The `Delta` of a LoRA. It is live as it is in the file; a Tucker core is contracted into `down`."""

    @property
    def algorithm(self) -> str:
        return "lora"

    @property
    def _shortest_rank(self) -> int:
        return self.pair_rank  # avoiding a copy is better than having fewer rows

    def raw_factors(self) -> RawFactors | None:
        down, up = self.tensors["down"], self.tensors["up"]
        if "mid" in self.tensors or down.dtype != up.dtype or not self.live:
            return super().raw_factors()
        return RawFactors(self._with_kernel(down.raw()), up.raw().reshape(up.shape[:2]), self.scale)

    def _product(self, scale: float) -> np.ndarray:
        down, up = self._pair()
        if scale != 1:  # scale up, so that dense and factors agree to the bit
            up = np.multiply(up, np.float32(scale), out=up if up.flags.writeable else None)
        return up @ down

    def _pair(self) -> tuple[np.ndarray, np.ndarray]:
        down, up = matrix(self.tensors["down"]), matrix(self.tensors["up"])
        if "mid" in self.tensors:
            down = join_core(self.tensors["mid"], up, down).down
        return down, up


def build_lora(module: str, path: str, roles: Mapping[str, Tensor], settings: ScaleSettings) -> LoraDelta | None:
    """Build the delta of one module from its tensors, checked against each other; None if the rank is 0.

    `module` is its name in messages. Raises AdapterError.
    """
    check_roles(module, roles, ("down", "up"), ("mid", *NUMBERS))
    if settings.dora:
        raise AdapterError(f"{module}: the settings have use_dora, but there is no magnitude tensor")
    tensors = {role: roles[role] for role in ("down", "mid", "up") if role in roles}
    down, up, mid = tensors["down"], tensors["up"], tensors.get("mid")
    check_shape(down, kernel=mid is None)
    check_shape(up)
    if mid:
        check_shape(mid, core=True)
        if mid.shape[:2] != (up.shape[1], down.shape[0]):
            raise AdapterError(
                f"{module}: mid is {sizes(mid.shape[:2])}, down has rank {down.shape[0]}, up has rank {up.shape[1]}"
            )
    elif down.shape[0] != up.shape[1]:
        raise AdapterError(f"{module}: down has rank {down.shape[0]}, up has rank {up.shape[1]}")
    if not all(tensor.count for tensor in tensors.values()):  # pruned to nothing
        return None
    columns = (*down.shape[:2], *mid.shape[2:]) if mid else down.shape
    shape = weight_shape(module, path, up.shape[0], columns)
    rank = down.shape[0]
    return LoraDelta(module, shape, rank, up.shape[1], scale_of(module, path, roles, rank, settings), tensors)

"""LoRA: ΔW = alpha / rank · up · down (https://arxiv.org/abs/2106.09685), on linear layers and 1×1 convolutions."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ._wording import listed, shown
from .delta import RawFactors
from .errors import AdapterError
from .file import Tensor
from .scale import Scale, ScaleSettings, scale_of

__all__ = ["LoraDelta", "build_lora"]

_DTYPES = {"F16": "f16", "BF16": "bf16", "F32": "f32"}


@dataclass(frozen=True, eq=False)
class LoraDelta:
    """The `Delta` of one module; see there."""

    module: str  # for messages: "unet mid_block.attentions.0.proj_in"
    down: Tensor
    up: Tensor
    scaling: Scale
    algorithm: str = "lora"

    @property
    def alpha(self) -> float | None:
        return self.scaling.alpha

    @property
    def scale(self) -> float:
        return self.scaling.factor

    @property
    def dtype(self) -> str:
        return _DTYPES[self.down.dtype] if self.down.dtype == self.up.dtype else "f32"

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.down.shape[2:]

    @property
    def in_features(self) -> int:
        return self.down.shape[1]

    @property
    def out_features(self) -> int:
        return self.up.shape[0]

    def dense(self, weight: np.ndarray) -> np.ndarray:
        if weight.shape[:2] != (self.out_features, self.in_features) or weight.size != np.prod(weight.shape[:2]):
            raise AdapterError(
                f"{self.module}: the adapter changes a {self.out_features}×{self.in_features} weight, "
                f"the model's is {'×'.join(map(str, weight.shape))}"
            )
        down, up = self.factors()
        return (up @ down).reshape(weight.shape)

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        down, up = self._flat(self.down.float32()), self._flat(self.up.float32())
        if self.scale != 1:  # in place where it is our own copy: the second allocation would cost more than the product
            up = np.multiply(up, np.float32(self.scale), out=up if up.flags.writeable else None)
        return down, up

    def raw_factors(self) -> RawFactors:
        if self.down.dtype == self.up.dtype:
            return RawFactors(self._flat(self.down.array), self._flat(self.up.array), self.scale)
        return RawFactors(self._flat(self.down.float32()), self._flat(self.up.float32()), self.scale)

    def _flat(self, factor: np.ndarray) -> np.ndarray:
        return factor.reshape(factor.shape[:2])


def build_lora(module: str, path: str, roles: Mapping[str, Tensor], settings: ScaleSettings) -> LoraDelta | None:
    """The delta of one module from its tensors, checked against each other; None where the rank is 0.

    `module` is its name in messages. Raises AdapterError.
    """
    if missing := sorted({"down", "up"} - roles.keys()):
        raise AdapterError(f"{module}: no {' and no '.join(missing)} for {listed([t.name for t in roles.values()])}")
    if settings.dora:
        raise AdapterError(f"{module}: the settings say use_dora, but there is no magnitude tensor")
    down, up = roles["down"], roles["up"]
    for tensor in (down, up):
        if tensor.dtype not in _DTYPES:
            raise AdapterError(f"tensor {shown(tensor.name)} is {tensor.dtype}: save it as F16, BF16 or F32")
        if len(tensor.shape) < 2 or tensor.shape[2:] not in ((), (1, 1)):
            raise AdapterError(
                f"tensor {shown(tensor.name)} has shape {list(tensor.shape)}, 2 dimensions were expected"
            )
    if down.shape[0] != up.shape[1]:
        raise AdapterError(f"{module}: down has rank {down.shape[0]}, up has rank {up.shape[1]}")
    if not down.count or not up.count:  # pruned to nothing
        return None
    return LoraDelta(module, down, up, scale_of(module, path, roles, down.shape[0], settings))

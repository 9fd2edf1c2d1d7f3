"""IA3 (https://arxiv.org/abs/2205.05638): one factor per output or per input of a module.

LyCORIS stores the change, `.weight` w and `.on_input`: ΔW = W ⊙ w. PEFT stores the factor, `.ia3_l` l: ΔW = W ⊙ (l − 1)
(peft/tuners/ia3/layer.py); its factors of outputs apply to the bias too (`bias.build_bias`). There is no alpha.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lorablend.adapters.algorithms.bases import BakedDelta
from lorablend.adapters.algorithms.checks import (
    check_floats,
    check_roles,
    dtype_of,
    require_finite,
    require_fit,
)
from lorablend.adapters.algorithms.delta import Gated
from lorablend.adapters.algorithms.scale import ScaleSettings
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor
from lorablend.adapters.wording import shown

__all__ = ["Ia3Delta", "build_ia3", "multiplies_outputs"]

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


@dataclass(frozen=True, eq=False)
class Ia3Delta(BakedDelta):
    """The `Delta` of an IA3. If it multiplies outputs, it is live as a gate."""

    module: str
    tensor: Tensor
    on_input: bool
    neutral: float  # the number that means no change: 0 in LyCORIS' files, 1 in PEFT's
    algorithm: str = "ia3"

    @property
    def dtype(self) -> str:
        return dtype_of([self.tensor])

    @property
    def in_features(self) -> int | None:
        return self.tensor.count if self.on_input else None

    @property
    def out_features(self) -> int | None:
        return None if self.on_input else self.tensor.count

    @property
    def made_for(self) -> str:
        return f"{self.tensor.count} {'inputs' if self.on_input else 'outputs'}"

    @property
    def live(self) -> str:
        return "" if self.on_input else "gate"

    def fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) > 1 and shape[int(self.on_input)] == self.tensor.count

    def dense(self, weight: np.ndarray) -> np.ndarray:
        require_fit(self.module, self.fits(weight.shape), self.made_for, weight.shape)
        along = 1 if self.on_input else 0
        with np.errstate(over="ignore"):
            change = weight * self._change().reshape([-1 if axis == along else 1 for axis in range(weight.ndim)])
        require_finite(self.module, change)
        return change

    def gated(self, weight: np.ndarray) -> Gated | None:
        if self.on_input:
            return None
        require_fit(self.module, self.fits(weight.shape), self.made_for, weight.shape)
        return Gated(self._change(), None, None)

    def _change(self) -> np.ndarray:
        return self.tensor.float32().reshape(-1) - np.float32(self.neutral)


def build_ia3(module: str, path: str, roles: Mapping[str, Tensor], settings: ScaleSettings) -> Ia3Delta | None:
    """Build the delta of one module from "weight" and "on_input" (LyCORIS) or "ia3" (PEFT); None if it is empty.

    Raises AdapterError.
    """
    if "ia3" in roles:
        check_roles(module, roles, ["ia3"])
        tensor, neutral = roles["ia3"], 1.0
        on_input = not multiplies_outputs(module, path, tensor, settings)
    else:
        check_roles(module, roles, ["weight", "on_input"], ["alpha"])
        tensor, neutral = roles["weight"], 0.0
        on_input = _zero_or_one(module, roles["on_input"])
    check_floats(tensor)
    if len(tensor.shape) not in (1, 2, 4) or tensor.count != max(tensor.shape):
        raise AdapterError(
            f"tensor {shown(tensor.name)} has shape {list(tensor.shape)}; expected one number per channel"
        )
    return Ia3Delta(module, tensor, on_input, neutral) if tensor.count else None


def multiplies_outputs(module: str, path: str, tensor: Tensor, settings: ScaleSettings) -> bool:
    """Return whether PEFT's `ia3_l` multiplies outputs (and the bias), rather than inputs (`feedforward_modules`).

    The shape tells it for a linear layer, [out, 1] or [1, in]. For a convolution the shape is [1, n, 1, 1] in both
    cases, and only PEFT's settings tell.
    """
    if len(tensor.shape) == 2:
        return tensor.shape[1] == 1
    modules: Any = settings.raw.get("feedforward_modules")
    if isinstance(modules, str) and set(modules) <= _PLAIN:  # a regular expression for the whole path
        return modules != path
    if isinstance(modules, list) and all(isinstance(name, str) for name in modules):
        return not path.endswith(tuple(modules))
    raise AdapterError(
        f"{module}: {shown(tensor.name)} may multiply inputs or outputs; keep adapter_config.json next to the file, "
        "with feedforward_modules as a list of names"
    )


def _zero_or_one(module: str, tensor: Tensor) -> bool:
    value = tensor.float32().reshape(-1).tolist() if tensor.count == 1 else []
    if value not in ([0.0], [1.0]):
        raise AdapterError(f"{module}: {shown(tensor.name)} is {shown(value)}; expected 0 or 1")
    return bool(value[0])

"""DoRA: V = W + ΔV, W' = m · V / ‖V‖ (https://arxiv.org/abs/2402.09353); ΔV is a LoRA's, LoCon's, LoHa's or LoKr's.

The norm is taken over each output channel, or in LyCORIS before 3.2 over each input channel; the shape of `dora_scale`
tells which. At a weight other than 1 the change W' − W is scaled, as in ComfyUI and A1111.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lorablend.adapters.algorithms.bases import WrappedDelta
from lorablend.adapters.algorithms.checks import check_floats, require_finite, require_fit
from lorablend.adapters.algorithms.delta import Gated
from lorablend.adapters.algorithms.factored import FactoredDelta
from lorablend.adapters.algorithms.loha import build_loha
from lorablend.adapters.algorithms.lokr import build_lokr
from lorablend.adapters.algorithms.lora import build_lora
from lorablend.adapters.algorithms.scale import ScaleSettings
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor
from lorablend.adapters.wording import shown

__all__ = ["DoraDelta", "build_dora"]

# LyCORIS adds it to the norm; PEFT adds nothing and would divide by zero.
_EPSILON = np.float32(np.finfo(np.float32).eps)

_MAGNITUDES = ("dora_scale", "magnitude")


@dataclass(frozen=True, eq=False)
class DoraDelta(WrappedDelta):
    """The `Delta` of a DoRA.

    If its norm is over the output channels, it is live as a gate: with g = m / ‖V‖, ΔW = (g − 1) · W + g · up · down.
    """

    inner: FactoredDelta
    magnitude: Tensor
    on_input: bool

    @property
    def algorithm(self) -> str:
        return "dora"

    @property
    def live(self) -> str:
        return "gate" if self.inner.live and not self.on_input else ""

    @property
    def live_rank(self) -> int:
        return self.inner.live_rank if self.live else 0

    def dense(self, weight: np.ndarray) -> np.ndarray:
        changed = self._changed(weight)
        axis = 1 if self.on_input else 0
        with np.errstate(over="ignore", invalid="ignore"):
            changed *= np.expand_dims(
                self._gain(changed, axis), [other for other in range(changed.ndim) if other != axis]
            )
            changed -= weight
        require_finite(self.module, changed)
        return changed

    def gated(self, weight: np.ndarray) -> Gated | None:
        if not self.live or (factors := self.inner.factors()) is None:
            return None
        gain = self._gain(self._changed(weight), 0)
        down, up = factors
        with np.errstate(over="ignore", invalid="ignore"):
            gate, up = gain - 1, up * gain[:, None]
        require_finite(self.module, gate, up)
        return Gated(gate, down, up)

    def _changed(self, weight: np.ndarray) -> np.ndarray:
        """Return V in a new array."""
        require_fit(self.module, self.fits(weight.shape), self.made_for, weight.shape)
        changed = self.inner.dense(weight)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.add(changed, weight, out=changed, casting="same_kind")

    def _gain(self, changed: np.ndarray, axis: int) -> np.ndarray:
        """Return m / ‖V‖ for each channel on this axis. The squares are summed in float64."""
        others = tuple(other for other in range(changed.ndim) if other != axis)
        with np.errstate(over="ignore", invalid="ignore"):
            norm = np.sqrt(np.square(changed).sum(axis=others, dtype=np.float64)).astype(np.float32) + _EPSILON
            return self.magnitude.float32().reshape(-1) / norm


def build_dora(module: str, path: str, roles: Mapping[str, Tensor], settings: ScaleSettings) -> DoraDelta | None:
    """Build the delta of one module from its tensors, checked against each other. `module` is its name in messages.

    Raises AdapterError, also for a rank of 0, with which the magnitude alone would be a change.
    """
    if len(magnitudes := [roles[role] for role in _MAGNITUDES if role in roles]) != 1:
        raise AdapterError(f"{module}: both dora_scale and a magnitude; expected only one of them")
    (magnitude,) = magnitudes
    check_floats(magnitude)
    rest = {role: tensor for role, tensor in roles.items() if role not in _MAGNITUDES}
    if any(role.startswith("hada_") for role in rest):
        build = build_loha
    elif any(role.startswith("lokr_") for role in rest):
        build = build_lokr
    else:
        build = build_lora
    inner = build(module, path, rest, replace(settings, dora=False))
    if inner is None:
        raise AdapterError(f"{module}: tensor {shown(magnitude.name)} is a magnitude, but the rank is 0")
    on_input = "dora_scale" in roles and _is_input(magnitude.shape)
    expected = inner.in_features if on_input else inner.out_features
    # One number for each channel, in any dimension: PEFT's convolutions have [1, out, 1, 1].
    if magnitude.count != expected or magnitude.count != max(magnitude.shape, default=1):
        side = "inputs" if on_input else "outputs"
        raise AdapterError(
            f"{module}: tensor {shown(magnitude.name)} has shape {list(magnitude.shape)} for {expected} {side}"
        )
    return DoraDelta(module, inner, magnitude, on_input)


def _is_input(shape: tuple[int, ...]) -> bool:
    """Return whether a `dora_scale` is for the input axis: LyCORIS writes [1, in] or [1, in, 1, 1].

    For the output axis it writes [out, 1], [out, 1, 1, 1] or [out].
    """
    return len(shape) > 1 and shape[0] == 1

"""Changes of a module's bias: added, replaced, or multiplied by PEFT's IA3."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lorablend.adapters.algorithms.checks import check_floats, require_finite
from lorablend.adapters.algorithms.ia3 import multiplies_outputs
from lorablend.adapters.algorithms.scale import ScaleSettings, scale_of
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor
from lorablend.adapters.wording import listed, shown

__all__ = ["BIAS_ROLES", "BiasChange", "build_bias"]

BIAS_ROLES = frozenset({"up_bias", "diff_b", "b_norm", "bias"})


@dataclass(frozen=True, eq=False)
class BiasChange:
    """The `BiasDelta` of one module. `kind` is "add", "replace" or "multiply"."""

    module: str
    tensor: Tensor
    kind: str
    scale: float = 1.0  # for "add"

    @property
    def out_features(self) -> int:
        return self.tensor.count

    def dense(self, bias: np.ndarray) -> np.ndarray:
        if bias.shape != (self.out_features,):
            raise AdapterError(
                f"{self.module}: the adapter changes a bias of {self.out_features} numbers, "
                f"but the model's has {bias.size}"
            )
        values = self.tensor.float32().reshape(-1)
        with np.errstate(over="ignore"):
            if self.kind == "replace":
                change = values - bias
            else:
                change = bias * (values - 1) if self.kind == "multiply" else values * np.float32(self.scale)
        require_finite(self.module, change)
        return change


def build_bias(module: str, path: str, roles: Mapping[str, Tensor], settings: ScaleSettings) -> BiasChange | None:
    """Build the change of one module's bias from all its tensors; None if there is none. Raises AdapterError.

    Roles: "up_bias" (LoRA's own, scaled like up · down, which needs "down"), "diff_b" and "b_norm" (added as they are),
    "bias" (replaces) and "ia3" (multiplies, if it multiplies the outputs).
    """
    present = [role for role in (*sorted(BIAS_ROLES), "ia3") if role in roles]
    if present == ["ia3"] and not multiplies_outputs(module, path, roles["ia3"], settings):
        return None
    if not present:
        return None
    if len(present) > 1:
        names = listed([roles[role].name for role in present])
        raise AdapterError(f"{module}: expected only one change of the bias, not {names}")
    role = present[0]
    tensor = roles[role]
    check_floats(tensor)
    if role != "ia3" and len(tensor.shape) != 1:
        raise AdapterError(f"tensor {shown(tensor.name)} has shape {list(tensor.shape)}; expected 1 dimension")
    if not tensor.count:
        return None
    if role == "up_bias":
        if "down" not in roles or not roles["down"].shape or not roles["down"].shape[0]:
            raise AdapterError(f"{module}: there is no down, whose rank scales the bias {shown(tensor.name)}")
        return BiasChange(module, tensor, "add", scale_of(module, path, roles, roles["down"].shape[0], settings).factor)
    return BiasChange(module, tensor, {"bias": "replace", "ia3": "multiply"}.get(role, "add"))

"""Changes that are stored in full: differences, replacements and norms.

ΔW = diff, or T − W for a tensor T that replaces W. They are written by LyCORIS (`full`, `norm`, extraction), ComfyUI
(`.diff`, `.set_weight`), ai-toolkit ("fullrank", whole conv_in and conv_out) and PEFT (`modules_to_save`). An alpha in
the file is ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lorablend.adapters.algorithms.bases import BakedDelta
from lorablend.adapters.algorithms.checks import (
    check_floats,
    check_roles,
    dtype_of,
    owned,
    require_finite,
    require_fit,
    sizes,
    without_ones,
)
from lorablend.adapters.algorithms.scale import ScaleSettings
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor
from lorablend.adapters.wording import shown

__all__ = ["FullDelta", "build_full"]

_DIFFERENCES = ("diff", "w_norm", "down")  # a down without an up is ai-toolkit's "fullrank"
_REPLACEMENTS = ("set_weight", "weight")
_LATENT, _INPAINTING = 4, 9  # input channels of conv_in: latents; latents, mask and masked latents


@dataclass(frozen=True, eq=False)
class FullDelta(BakedDelta):
    """The `Delta` of a tensor that is added to a weight or replaces it."""

    module: str
    tensor: Tensor
    replaces: bool
    padded: bool = False  # conv_in for plain latents, to which an inpainting model adds five channels
    algorithm: str = "full"

    @property
    def dtype(self) -> str:
        return dtype_of([self.tensor])

    @property
    def in_features(self) -> int | None:
        return self.tensor.shape[1] if len(self.tensor.shape) > 1 else None

    @property
    def out_features(self) -> int:
        return self.tensor.shape[0]

    @property
    def made_for(self) -> str:
        return sizes(self.tensor.shape) if len(self.tensor.shape) > 1 else f"{self.tensor.count} numbers"

    def fits(self, shape: tuple[int, ...]) -> bool:
        return without_ones(self.tensor.shape) == without_ones(self._covered(shape))

    def dense(self, weight: np.ndarray) -> np.ndarray:
        require_fit(self.module, self.fits(weight.shape), self.made_for, weight.shape)
        covered = self._covered(weight.shape)
        change = self.tensor.float32().reshape(covered)
        if self.replaces:
            with np.errstate(over="ignore"):
                change = change - weight[:, : covered[1]] if len(covered) > 1 else change - weight
            require_finite(self.module, change)
        if covered == weight.shape:
            return owned(change)
        padded = np.zeros(weight.shape, np.float32)
        padded[:, :_LATENT] = change
        return padded

    def _covered(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the part of the weight that changes."""
        inpainting = self.padded and len(shape) == 4 and shape[1] == _INPAINTING
        return (shape[0], _LATENT, *shape[2:]) if inpainting else shape


def build_full(module: str, path: str, roles: Mapping[str, Tensor], settings: ScaleSettings) -> FullDelta | None:
    """Build the delta of one module from a full tensor; None if it is empty. Raises AdapterError.

    Roles: one of "diff", "w_norm", "down" (added) and "set_weight", "weight" (replacing).
    """
    role = next((role for role in (*_DIFFERENCES, *_REPLACEMENTS) if role in roles), "diff")
    check_roles(module, roles, [role], ["alpha"])
    tensor = roles[role]
    check_floats(tensor)
    expected = (1,) if role == "w_norm" else (1, 2, 4)
    if len(tensor.shape) not in expected:
        raise AdapterError(
            f"tensor {shown(tensor.name)} has shape {list(tensor.shape)}; "
            f"expected {' or '.join(map(str, expected))} dimensions"
        )
    if not tensor.count:
        return None
    padded = path == "conv_in" and tensor.shape[1:2] == (_LATENT,)
    algorithm = "norm" if len(tensor.shape) == 1 else "full"
    return FullDelta(module, tensor, role in _REPLACEMENTS, padded, algorithm)

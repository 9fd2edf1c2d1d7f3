"""OFT and BOFT as LyCORIS and sd-scripts store them: rotations of a module's outputs.

OFT (https://arxiv.org/abs/2306.07280; `lycoris/functional/diag_oft.py`): blocks B [k, n, n], Q = B − Bᵀ,
R = (I + Q)(I − Q)⁻¹, and W' = Rᵀ W in blocks of n outputs. BOFT (https://arxiv.org/abs/2311.06243;
`lycoris/functional/boft.py`): m such stages, not transposed, each on its own butterfly order of the outputs. `rescale`
multiplies the outputs afterwards. `alpha` has another meaning here: alpha times the number of outputs is the largest
norm of Q that is allowed; 0 allows any.

The user's weight s gives W + s·(W' − W). For OFT this is exactly I + s·(R − I) in place of R. For BOFT, LyCORIS
interpolates each stage instead, which is the same only at s = 0 and s = 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lorablend.adapters.algorithms.bases import BakedDelta
from lorablend.adapters.algorithms.checks import (
    check_floats,
    check_roles,
    dtype_of,
    require_finite,
    require_fit,
)
from lorablend.adapters.algorithms.oft_peft import PeftOftDelta, build_boft, build_peft_oft
from lorablend.adapters.algorithms.rotation import check_stages, rotation_change, skew
from lorablend.adapters.algorithms.scale import ScaleSettings, scale_of
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor
from lorablend.adapters.wording import shown

__all__ = ["OftDelta", "build_boft", "build_oft"]


@dataclass(frozen=True, eq=False)
class OftDelta(BakedDelta):
    """The `Delta` of an OFT or BOFT in LyCORIS' form."""

    module: str
    blocks: Tensor  # [k, n, n], or [stages, k, n, n] for BOFT
    rescale: Tensor | None  # one number per output
    limit: float  # of the norm of Q; 0 for none
    ready: bool = False  # the blocks are R itself, as in LyCORIS' `oft_diag` of autumn 2023
    algorithm: str = "oft"

    @property
    def dtype(self) -> str:
        return dtype_of([self.blocks, *([self.rescale] if self.rescale else [])])

    @property
    def out_features(self) -> int:
        return self.blocks.shape[-3] * self.blocks.shape[-1]

    @property
    def made_for(self) -> str:
        return f"{self.out_features} outputs"

    def fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) > 1 and shape[0] == self.out_features

    def dense(self, weight: np.ndarray) -> np.ndarray:
        require_fit(self.module, self.fits(weight.shape), self.made_for, weight.shape)
        base = weight.reshape(self.out_features, -1)
        turn = self._turn()
        with np.errstate(over="ignore", invalid="ignore"):
            change = self._stages(turn, base) if turn.ndim == 4 else _blockwise(turn.swapaxes(1, 2), base)
            if self.rescale:
                factor = self.rescale.float32().reshape(-1, 1)
                change = factor * change + (factor - 1) * base
        require_finite(self.module, change)
        return change.reshape(weight.shape)

    def _turn(self) -> np.ndarray:
        """Return R − I in float32, in the blocks' shape. R is close to I, so W' − W would lose most digits."""
        blocks = self.blocks.float32().astype(np.float64)
        if self.ready:
            return (blocks - np.eye(blocks.shape[-1])).astype(np.float32)
        q = skew(blocks)
        norm = float(np.linalg.norm(q)) + 1e-8  # as in LyCORIS
        if self.limit > 0 and norm > self.limit:
            q *= self.limit / norm
        return rotation_change(self.module, q)

    def _stages(self, turn: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Apply all stages of BOFT. The change is kept separate from the weight, for the reason in `_turn`."""
        change = np.zeros_like(base)
        for stage, blocks in enumerate(turn):
            pairs = (-1, 2, 2**stage * blocks.shape[-1] // 2, base.shape[1])
            turned = _blockwise(blocks, (base + change).reshape(pairs).swapaxes(1, 2))
            change += turned.reshape(-1, pairs[2], 2, base.shape[1]).swapaxes(1, 2).reshape(base.shape)
        return change


def _blockwise(blocks: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Multiply blocks [k, n, n] by k·n rows, in order."""
    count, size, _ = blocks.shape
    return (blocks @ rows.reshape(count, size, -1)).reshape(count * size, -1)


def build_oft(
    module: str, path: str, roles: Mapping[str, Tensor], settings: ScaleSettings
) -> OftDelta | PeftOftDelta | None:
    """Build the delta of one module from "oft_blocks", "oft_diag" or PEFT's "oft_r"; None if it is empty.

    Raises AdapterError.
    """
    if "oft_r" in roles:
        return build_peft_oft(module, path, roles, settings)
    ready = "oft_diag" in roles
    role = "oft_diag" if ready else "oft_blocks"
    check_roles(module, roles, [role], ["rescale", "alpha"])
    blocks, rescale = roles[role], roles.get("rescale")
    check_floats(blocks, rescale)
    if len(blocks.shape) not in ((3,) if ready else (3, 4)) or blocks.shape[-1] != blocks.shape[-2]:
        raise AdapterError(f"tensor {shown(blocks.name)} has shape {list(blocks.shape)}; expected square blocks")
    if not blocks.count:
        return None
    delta = OftDelta(module, blocks, rescale, _limit(module, path, roles, blocks), ready)
    if rescale and (rescale.count != delta.out_features or max(rescale.shape, default=1) != rescale.count):
        raise AdapterError(
            f"{module}: rescale has shape {list(rescale.shape)}, but the blocks rotate {delta.out_features} outputs"
        )
    if len(blocks.shape) == 3:
        return delta
    check_stages(module, blocks.shape)
    return replace(delta, algorithm="boft")


def _limit(module: str, path: str, roles: Mapping[str, Tensor], blocks: Tensor) -> float:
    """Return alpha times the number of outputs, 0 without an alpha."""
    if "alpha" not in roles:
        return 0.0
    alpha = scale_of(module, path, {"alpha": roles["alpha"]}, 1, ScaleSettings()).factor
    return alpha * blocks.shape[-3] * blocks.shape[-1]

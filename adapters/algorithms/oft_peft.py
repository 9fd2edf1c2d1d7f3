"""OFT and BOFT as PEFT stores them: rotations of a module's inputs (for a convolution, inputs times kernel elements).

OFT (peft/tuners/oft/layer.py, the form since 0.16, also OneTrainer's): `.oft_R.weight` [blocks, b(b − 1)/2] has the
entries of skew-symmetric matrices Q above the diagonal. R is the series of `rotation.neumann_change` or, without
`use_cayley_neumann`, (I − Q)(I + Q)⁻¹; W' = W Rᵀ in blocks of b inputs. A single block may be shared by all blocks of
inputs (`block_share`). OneTrainer's `scaled_oft` divides the entries by 2√(b − 1). Without PEFT's settings, the series
has five terms, the default of both programs. Files from before PEFT 0.18 meant 2Q⁴ where the series now has Q⁴; like
PEFT, we use the new series for them.

BOFT (peft/tuners/boft/layer.py): `.boft_R` [stages, blocks, b, b], Q = (A − Aᵀ)/2, R = (I − Q)(I + Q)⁻¹ per block,
W' = (R₁ … Rₘ applied to Wᵀ one after the other)ᵀ, and `.boft_s` multiplies the outputs. The module `oft` explains the
user's weight, for both.
"""

import math
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
from lorablend.adapters.algorithms.rotation import (
    check_stages,
    neumann_change,
    rotation_change,
    skew,
    skew_from_triangle,
)
from lorablend.adapters.algorithms.scale import ScaleSettings, flag_of
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor
from lorablend.adapters.wording import shown

__all__ = ["PeftBoftDelta", "PeftOftDelta", "build_boft", "build_peft_oft"]

_TERMS = 5  # PEFT's default
_MOST_TERMS = 100
_EPS = 6e-5  # PEFT's default


@dataclass(frozen=True, eq=False)
class PeftOftDelta(BakedDelta):
    """The `Delta` of an OFT in PEFT's form."""

    module: str
    entries: Tensor  # [blocks, b(b − 1)/2]
    size: int  # b
    divisor: float
    terms: int | None  # of the series; None for the exact inverse
    eps: float | None  # "coft": the largest norm of Q times √blocks
    algorithm: str = "oft"

    @property
    def dtype(self) -> str:
        return dtype_of([self.entries])

    @property
    def made_for(self) -> str:
        blocks = self.entries.shape[0]
        return f"{blocks * self.size} inputs" if blocks > 1 else f"inputs in blocks of {self.size}"

    def fits(self, shape: tuple[int, ...]) -> bool:
        inputs, blocks = math.prod(shape[1:]), self.entries.shape[0]
        shared = blocks == 1 and inputs > 0 and inputs % self.size == 0
        return len(shape) > 1 and (shared or inputs == blocks * self.size)

    def dense(self, weight: np.ndarray) -> np.ndarray:
        require_fit(self.module, self.fits(weight.shape), self.made_for, weight.shape)
        blocks = weight.reshape(len(weight), -1, self.size)
        with np.errstate(over="ignore", invalid="ignore"):
            turned = blocks.swapaxes(0, 1) @ self._turn().swapaxes(1, 2)  # [blocks, out, b]
        require_finite(self.module, turned)
        return turned.swapaxes(0, 1).reshape(weight.shape)

    def _turn(self) -> np.ndarray:
        """Return R − I, [blocks, b, b]."""
        q = skew_from_triangle(self.entries.float32().astype(np.float64) / self.divisor, self.size)
        if self.eps is not None:
            limit = self.eps / math.sqrt(len(q))
            norms = np.linalg.norm(q, axis=(1, 2), keepdims=True)
            q *= np.minimum(1, np.divide(limit, norms, out=np.ones_like(norms), where=norms > 0))
        return rotation_change(self.module, -q) if self.terms is None else neumann_change(self.module, q, self.terms)


@dataclass(frozen=True, eq=False)
class PeftBoftDelta(BakedDelta):
    """The `Delta` of a BOFT in PEFT's form."""

    module: str
    blocks: Tensor  # [stages, blocks, b, b]
    rescale: Tensor  # one number per output
    algorithm: str = "boft"

    @property
    def dtype(self) -> str:
        return dtype_of([self.blocks, self.rescale])

    @property
    def out_features(self) -> int:
        return self.rescale.count

    @property
    def made_for(self) -> str:
        return f"{self.out_features} outputs and {self._inputs} inputs"

    @property
    def _inputs(self) -> int:
        return self.blocks.shape[1] * self.blocks.shape[2]

    def fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) > 1 and shape[0] == self.out_features and math.prod(shape[1:]) == self._inputs

    def dense(self, weight: np.ndarray) -> np.ndarray:
        require_fit(self.module, self.fits(weight.shape), self.made_for, weight.shape)
        base = weight.reshape(len(weight), -1).T  # [inputs, out]
        turn = rotation_change(self.module, skew(self.blocks.float32().astype(np.float64)) / -2)
        factor = self.rescale.float32().reshape(-1)
        change = np.zeros_like(base)
        with np.errstate(over="ignore", invalid="ignore"):
            for stage, blocks in enumerate(turn):
                order = _butterfly(self._inputs, stage, blocks.shape[-1])
                turned = blocks @ (base + change)[order].reshape(*blocks.shape[:2], -1)
                change[order] += turned.reshape(base.shape)
            change = change * factor + base * (factor - 1)
        require_finite(self.module, change)
        return np.ascontiguousarray(change.T).reshape(weight.shape)


def _butterfly(inputs: int, stage: int, size: int) -> np.ndarray:
    """Return the order in which the blocks of one stage take their inputs.

    Of every 2^(stage + 1) half blocks, PEFT's matrix P puts the even ones first. The stage is P · blocks · Pᵀ, so this
    is Pᵀ.
    """
    if not stage:  # blocks of odd size have only this stage
        return np.arange(inputs)
    return np.arange(inputs).reshape(-1, 2, 2**stage, size // 2).swapaxes(1, 2).reshape(-1)


def build_peft_oft(module: str, path: str, roles: Mapping[str, Tensor], settings: ScaleSettings) -> PeftOftDelta | None:
    """Build the delta of one module from "oft_r"; None if it is empty. Raises AdapterError."""
    check_roles(module, roles, ["oft_r"], ["scaled_oft", "alpha"])
    entries = roles["oft_r"]
    check_floats(entries)
    if len(entries.shape) != 2:
        raise AdapterError(f"tensor {shown(entries.name)} has shape {list(entries.shape)}; expected 2 dimensions")
    if not entries.count:
        return None
    size = (1 + math.isqrt(1 + 8 * entries.shape[1])) // 2
    if size * (size - 1) // 2 != entries.shape[1]:
        raise AdapterError(f"tensor {shown(entries.name)} has {entries.shape[1]} columns; no block has as many entries")
    divisor = 2 * math.sqrt(size - 1) if "scaled_oft" in roles else 1.0
    source, given = settings.source, settings.raw
    series = flag_of(source, "use_cayley_neumann", given, default=True)
    terms = _number(source, given, "num_cayley_neumann_terms", _TERMS, (1, _MOST_TERMS), int)
    eps = _number(source, given, "eps", _EPS, (0, 1e30), int | float) if flag_of(source, "coft", given) else None
    return PeftOftDelta(module, entries, size, divisor, int(terms) if series else None, eps)


def build_boft(module: str, path: str, roles: Mapping[str, Tensor], settings: ScaleSettings) -> PeftBoftDelta | None:
    """Build the delta of one module from PEFT's "boft_r" and "boft_s"; None if it is empty. Raises AdapterError."""
    check_roles(module, roles, ["boft_r", "boft_s"])
    blocks, rescale = roles["boft_r"], roles["boft_s"]
    check_floats(blocks, rescale)
    if len(blocks.shape) != 4 or blocks.shape[2] != blocks.shape[3]:
        raise AdapterError(f"tensor {shown(blocks.name)} has shape {list(blocks.shape)}; expected square blocks")
    if len(rescale.shape) != 2 or 1 not in rescale.shape:
        raise AdapterError(
            f"tensor {shown(rescale.name)} has shape {list(rescale.shape)}; expected one number per output"
        )
    if not blocks.count or not rescale.count:
        return None
    if blocks.shape[0] > 1:  # a single stage exchanges nothing
        check_stages(module, blocks.shape)
    return PeftBoftDelta(module, blocks, rescale)


def _number(
    source: str, settings: Mapping[str, Any], name: str, default: float, bounds: tuple[float, float], kind: Any
) -> float:
    value = settings.get(name, default)
    if isinstance(value, bool) or not isinstance(value, kind) or not bounds[0] <= value <= bounds[1]:
        raise AdapterError(f"{source}: {name} is {shown(value)}; expected a number from {bounds[0]} to {bounds[1]}")
    return value

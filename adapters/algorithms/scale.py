"""What a trained change is multiplied by: alpha / rank, or alpha / √rank.

The module's own `.alpha` tensor comes first, then the settings that `scale_sources` reads. Without any of them the
scale is 1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from lorablend.adapters.algorithms.trainer import Trainer
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor
from lorablend.adapters.names.patterns import Patterns
from lorablend.adapters.wording import shown

__all__ = ["Scale", "ScaleSettings", "flag_of", "number_of", "patterns_of", "scale_of"]

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Scale:
    """`alpha` is what the file gives, or None; `factor` is what up · down is multiplied by."""

    alpha: float | None
    factor: float


@dataclass(frozen=True)
class ScaleSettings:
    """What one place says about one component; an alpha there is for modules without an alpha tensor."""

    alpha: float | None = None
    alpha_pattern: Patterns | None = None
    rank_stabilised: bool = False  # rsLoRA (https://arxiv.org/abs/2312.03732): alpha / √rank
    dora: bool = False
    raw: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # all settings, unchecked
    source: str = ""  # where they come from, for messages
    trainer: Trainer = field(default_factory=Trainer)

    def alpha_of(self, path: str) -> float | None:
        """Return the alpha of a module path: that of the first pattern that matches, else the component's."""
        alpha = self.alpha_pattern.find(path) if self.alpha_pattern else None
        return self.alpha if alpha is None else alpha

    def rank_of(self, path: str) -> float | None:
        """Return the rank of a module path in the same way, for modules whose tensors do not tell it.

        Raises AdapterError for settings that are not numbers.
        """
        component_rank, patterns = self._ranks
        rank = patterns.find(path) if patterns else None
        return component_rank if rank is None else rank

    @cached_property
    def _ranks(self) -> tuple[float | None, Patterns | None]:
        return number_of(self.source, "r", self.raw), patterns_of(self.source, "rank_pattern", self.raw)


def scale_of(module: str, path: str, roles: Mapping[str, Tensor], rank: int | None, settings: ScaleSettings) -> Scale:
    """Return the scale of one module. `module` is its name in messages. Raises AdapterError for an unusable alpha.

    `rank` is the tensors' rank; None for a LoKr of two whole matrices, which has none. In that case PEFT uses the rank
    of its settings; in other tools' files the scale is 1 and alpha means nothing (ai-toolkit writes 9999999999), unless
    the header says that LyCORIS has trained it with another one.
    """
    alpha = _alpha(module, path, roles, settings, finite=rank is not None)
    if alpha is None:
        factor = 1.0
    elif "alpha" in roles and (trained := settings.trainer.scale_of(roles, alpha, rank)) is not None:
        factor = trained
    else:
        divisor = settings.rank_of(path) if rank is None and "alpha" not in roles else rank
        if divisor is None or divisor <= 0:
            factor = 1.0
        else:
            said = settings.alpha_of(path) if "alpha" in roles else None
            root = settings.rank_stabilised and not _has_root(alpha, said, divisor)
            factor = alpha / (math.sqrt(divisor) if root else divisor)
    if "scale" in roles:  # A1111 uses it instead of alpha / rank
        factor = _scalar(module, roles["scale"])
    if "scalar" in roles:  # LyCORIS' use_scalar
        factor *= _scalar(module, roles["scalar"])
    if not abs(factor) <= _LARGEST:
        raise AdapterError(f"{module}: scale {factor} does not fit float32")
    return Scale(alpha, factor)


def _has_root(alpha: float, said: float | None, rank: float) -> bool:
    """Return whether an alpha tensor is the settings' alpha times √rank, so that alpha / rank is stabilised already."""
    return said is not None and rank > 1 and math.isclose(alpha, said * math.sqrt(rank), rel_tol=0.01)


def _alpha(
    module: str, path: str, roles: Mapping[str, Tensor], settings: ScaleSettings, *, finite: bool
) -> float | None:
    if "alpha" not in roles:
        return settings.alpha_of(path)
    alpha = _scalar(module, roles["alpha"])
    if math.isfinite(alpha):
        return alpha
    if finite:
        raise AdapterError(f"tensor {shown(roles['alpha'].name)} contains NaN or infinity; the file is unusable")
    return None


def _scalar(module: str, tensor: Tensor) -> float:
    if tensor.count != 1:
        raise AdapterError(f"{module}: tensor {shown(tensor.name)} has shape {list(tensor.shape)}; expected one number")
    array = tensor.float32() if tensor.dtype in ("BF16", "F8_E4M3", "F8_E5M2") else tensor.array
    return float(array.reshape(()).item())


def number_of(source: str, name: str, settings: Mapping[str, Any]) -> float | None:
    """Return a setting that is a number, None if it is absent. Raises AdapterError if it is anything else."""
    value = settings.get(name)
    return None if value is None else _number(source, name, value)


def patterns_of(source: str, name: str, settings: Mapping[str, Any]) -> Patterns | None:
    """Return a setting with numbers by pattern, None if there are none. Raises AdapterError if it is anything else."""
    pattern = settings.get(name) or {}
    if not isinstance(pattern, dict):
        raise AdapterError(f"{source}: {name} is not an object")
    numbers = {key: _number(source, f"{name} {shown(key)}", value) for key, value in pattern.items()}
    return Patterns(f"{source}: {name}", numbers) if numbers else None


def _number(source: str, name: str, value: Any) -> float:
    try:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer beyond float64
        pass
    raise AdapterError(f"{source}: {shown(name)} is {shown(value)}; expected a finite number")


def flag_of(source: str, name: str, settings: Mapping[str, Any], default: bool = False) -> bool:
    """Return a setting that is true or false. Raises AdapterError if it is anything else."""
    value = settings.get(name)
    if not isinstance(value, bool | None):
        raise AdapterError(f"{source}: {name} is {shown(value)}; expected true or false")
    return default if value is None else value

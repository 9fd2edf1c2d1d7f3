"""What a trained change is multiplied by: alpha / rank, and the four places where alpha may be stored.

In order of precedence: the module's own `.alpha` tensor; diffusers' `lora_adapter_metadata`; PEFT's
`adapter_config.json` next to `adapter_model.safetensors`; a plain `lora_alpha`, `network_alpha` or `alpha` in the
metadata. Without any of them the scale is 1.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor, TensorFile
from lorablend.adapters.names.keys import COMPONENTS
from lorablend.adapters.names.patterns import Patterns
from lorablend.adapters.wording import shown

__all__ = ["Scale", "ScaleSettings", "flag_of", "read_scale_settings", "scale_of"]

_LARGEST = float(np.finfo(np.float32).max)
# PEFT's ways of initialising a LoRA that also change the base weights, which its files do not contain.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq")
# Characters of PEFT's settings. A pattern for every module of SDXL takes a tenth of it. Parsed JSON can take twenty
# bytes per character.
_SETTINGS_LIMIT = 2_000_000


@dataclass(frozen=True)
class Scale:
    """`alpha` is what the file gives, or None; `factor` is what up · down is multiplied by."""

    alpha: float | None
    factor: float


@dataclass(frozen=True)
class ScaleSettings:
    """PEFT's settings for one component, which apply to modules without an alpha tensor."""

    alpha: float | None = None
    alpha_pattern: Patterns | None = None
    rank_stabilised: bool = False  # rsLoRA (https://arxiv.org/abs/2312.03732): alpha / √rank
    dora: bool = False
    raw: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # all settings, unchecked
    source: str = ""  # where they come from, for messages

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
        return _optional_number(self.source, "r", self.raw), _patterns(self.source, "rank_pattern", self.raw)


def scale_of(module: str, path: str, roles: Mapping[str, Tensor], rank: int | None, settings: ScaleSettings) -> Scale:
    """Return the scale of one module. `module` is its name in messages. Raises AdapterError for an unusable alpha.

    `rank` is the tensors' rank; None for a LoKr of two whole matrices, which has none. In that case PEFT uses the rank
    of its settings; in other tools' files the scale is 1 and alpha means nothing (ai-toolkit writes 9999999999).
    """
    alpha = _alpha(module, path, roles, settings, finite=rank is not None)
    divisor = settings.rank_of(path) if rank is None and "alpha" not in roles else rank
    if alpha is None or divisor is None or divisor <= 0:
        factor = 1.0
    else:
        factor = alpha / (math.sqrt(divisor) if settings.rank_stabilised else divisor)
    if "scale" in roles:  # A1111 uses it instead of alpha / rank
        factor = _scalar(module, roles["scale"])
    if "scalar" in roles:  # LyCORIS' use_scalar
        factor *= _scalar(module, roles["scalar"])
    if not abs(factor) <= _LARGEST:
        raise AdapterError(f"{module}: scale {factor} does not fit float32")
    return Scale(alpha, factor)


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


def read_scale_settings(file: TensorFile) -> dict[str, ScaleSettings]:
    """Return the settings of every component. Raises AdapterError if there are any that cannot be understood."""
    if (text := file.metadata.get("lora_adapter_metadata")) is not None:
        source = "metadata lora_adapter_metadata"
        settings = _json_object(source, text)
    elif (config := _sibling_config(file.path)) is not None:
        source = "adapter_config.json"
        settings = _json_object(source, config)
    else:
        return dict.fromkeys(COMPONENTS, ScaleSettings(alpha=_plain_alpha(file.metadata)))
    return {component: _settings(source, _of_component(settings, component)) for component in COMPONENTS}


def _sibling_config(path: Path) -> str | None:
    """Return the text of adapter_config.json if PEFT wrote it together with this file.

    PEFT always uses these two names; next to a file of any other name, the settings belong to something else.
    """
    config = path.with_name("adapter_config.json")
    if path.name != "adapter_model.safetensors" or not config.is_file():
        return None
    try:
        if config.stat().st_size > _SETTINGS_LIMIT:  # before reading it
            raise AdapterError(f"adapter_config.json is longer than {_SETTINGS_LIMIT} bytes")
        return config.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AdapterError("adapter_config.json cannot be read") from error


def _json_object(source: str, text: str) -> dict[str, Any]:
    if len(text) > _SETTINGS_LIMIT:
        raise AdapterError(f"{source} is longer than {_SETTINGS_LIMIT} characters")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{source} is not valid JSON") from error
    if not isinstance(parsed, dict):
        raise AdapterError(f"{source} is not a JSON object")
    return parsed


def _plain_alpha(metadata: Mapping[str, str]) -> float | None:
    for key in ("lora_alpha", "network_alpha", "alpha"):
        try:
            alpha = float(metadata.get(key, ""))
        except ValueError:  # "None", "Dynamic"
            continue
        if math.isfinite(alpha):
            return alpha
    return None


def _of_component(settings: Mapping[str, Any], component: str) -> dict[str, Any]:
    """Return the settings of one component ("unet.lora_alpha"…); all settings if their names have no components."""
    if any(key.startswith(tuple(f"{name}." for name in COMPONENTS)) for key in settings):
        return {key.removeprefix(f"{component}."): settings[key] for key in settings if key.startswith(f"{component}.")}
    return dict(settings)


def _settings(source: str, settings: Mapping[str, Any]) -> ScaleSettings:
    start = settings.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(_CHANGED_BASE):
        raise AdapterError(
            f"{source}: init_lora_weights is {shown(start)}, which changes the base model too; save the adapter with "
            "path_initial_model_for_weight_conversion"
        )
    alpha_name = "alpha" if "lora_alpha" not in settings else "lora_alpha"  # LoRA's name for it, LoHa's and LoKr's
    return ScaleSettings(
        alpha=_optional_number(source, alpha_name, settings),
        alpha_pattern=_patterns(source, "alpha_pattern", settings),
        rank_stabilised=flag_of(source, "use_rslora", settings),
        dora=flag_of(source, "use_dora", settings),
        raw=MappingProxyType(dict(settings)),
        source=source,
    )


def _optional_number(source: str, name: str, settings: Mapping[str, Any]) -> float | None:
    value = settings.get(name)
    return None if value is None else _number(source, name, value)


def _patterns(source: str, name: str, settings: Mapping[str, Any]) -> Patterns | None:
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

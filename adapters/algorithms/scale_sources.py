"""Where a file may say its alpha and rank, besides the `.alpha` tensors, which come before all of these.

In order of precedence:

1. `lora_adapter_metadata` in the header: JSON with PEFT's settings, as diffusers writes it.
2. PEFT's `adapter_config.json` next to `adapter_model.safetensors`.
3. Any other entry of the header that is JSON with a `lora_alpha`.
4. Plain entries of the header: `lora_alpha`, `network_alpha` or `alpha`, with `r`, `lora_rank`, `use_rslora`….

In each of them a name may be for one component: "unet.lora_alpha".
"""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lorablend.adapters.algorithms.scale import ScaleSettings, flag_of, number_of, patterns_of
from lorablend.adapters.algorithms.trainer import Trainer, read_trainer
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import TensorFile
from lorablend.adapters.files.metadata import (
    ALPHA_NAMES,
    FLAG_NAMES,
    INIT_NAME,
    PATTERN_NAMES,
    RANK_NAMES,
    scale_entries,
)
from lorablend.adapters.names.keys import COMPONENTS
from lorablend.adapters.wording import shown

__all__ = ["CONFIG", "Sources", "read_sources"]

CONFIG = "adapter_config.json"

Sources = Mapping[str, tuple[ScaleSettings, ...]]  # by component, the most trusted first; at least one each

_DIFFUSERS = "lora_adapter_metadata"
# Characters of PEFT's settings. A pattern for every module of SDXL takes a tenth of it. Parsed JSON can take twenty
# bytes per character.
_SETTINGS_LIMIT = 2_000_000
# PEFT's ways of initialising a LoRA that also change the base weights, which its files do not contain.
_CHANGED_BASE = ("pissa", "olora", "corda", "lora_ga")
_QUANTISED = "loftq"
# Its variants of LoRA that compute something else from the same tensors.
_VARIANTS = {
    "kasa_config": "KaSA, which changes the base model too",
    "use_bdlora": "BD-LoRA, whose tensors are blocks of a matrix",
    "use_qalora": "QA-LoRA, which averages a layer's inputs",
    "arrow_config": "Arrow, which chooses between several adapters",
    "alora_invocation_tokens": "activated LoRA, which is for language models",
}


def read_sources(file: TensorFile) -> Sources:
    """Return what each place says. Raises AdapterError if PEFT's settings cannot be understood or applied."""
    trainer = read_trainer(file.metadata)
    strict: list[tuple[str, dict[str, Any]]] = []
    if (text := file.metadata.get(_DIFFUSERS)) is not None:
        strict.append((f"metadata {_DIFFUSERS}", _json_object(f"metadata {_DIFFUSERS}", text)))
    loose = [(f"metadata {shown(key)}", settings) for key, settings in _other_settings(file.metadata)]
    if (config := _sibling_config(file.path)) is not None:
        strict.append((CONFIG, _json_object(CONFIG, config)))
    plain = _plain(scale_entries(file.metadata))
    return {component: _of_component(component, strict, loose, plain, trainer) for component in COMPONENTS}


def _of_component(
    component: str,
    strict: list[tuple[str, dict[str, Any]]],
    loose: list[tuple[str, dict[str, Any]]],
    plain: dict[str, Any],
    trainer: Trainer,
) -> tuple[ScaleSettings, ...]:
    found = [_settings(source, _own(settings, component), trainer) for source, settings in strict]
    others = [*loose, ("the header's plain entries", plain)]
    for source, settings in others:
        numbers = _numbers(_own(settings, component))
        if numbers.keys() & {"lora_alpha", "alpha_pattern", INIT_NAME}:
            found.append(_settings(source, numbers, trainer))
    first = next((settings for settings in found if settings.alpha is not None or settings.alpha_pattern), None)
    if first is None:  # nobody gives an alpha
        return tuple(found) or (ScaleSettings(trainer=trainer),)
    return first, *(settings for settings in found if settings is not first)


def _sibling_config(path: Path) -> str | None:
    """Return the text of adapter_config.json if PEFT wrote it together with this file.

    PEFT always uses these two names; next to a file of any other name, the settings belong to something else.
    """
    config = path.with_name(CONFIG)
    if path.name != "adapter_model.safetensors" or not config.is_file():
        return None
    try:
        if config.stat().st_size > _SETTINGS_LIMIT:  # before reading it
            raise AdapterError(f"{CONFIG} is longer than {_SETTINGS_LIMIT} bytes")
        return config.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AdapterError(f"{CONFIG} cannot be read") from error


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


def _other_settings(metadata: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """Return the other entries that are JSON with a lora_alpha: "adapter_config", "lora_config", OneTrainer's…"""
    found: list[tuple[str, dict[str, Any]]] = []
    left = _SETTINGS_LIMIT  # for all of them together
    for key, text in metadata.items():
        if key == _DIFFUSERS or len(text) > left or 'lora_alpha"' not in text:
            continue
        left -= len(text)
        try:
            settings = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(settings, dict):
            found.append((key, settings))
    return found


def _plain(entries: Mapping[str, str]) -> dict[str, Any]:
    """Return plain text entries as numbers, flags and patterns; what makes no sense as such is left out."""
    parsed: dict[str, Any] = {}
    left = _SETTINGS_LIMIT
    for key, text in entries.items():
        if (left := left - len(text)) < 0:
            break
        if key.endswith(INIT_NAME):
            parsed[key] = text
        elif key.endswith(PATTERN_NAMES) or text.lower() in ("true", "false"):
            with suppress(ValueError, RecursionError):
                parsed[key] = json.loads(text.lower() if len(text) <= len("false") else text)
        else:
            with suppress(ValueError):
                parsed[key] = float(text)
    return parsed


def _own(settings: Mapping[str, Any], component: str) -> dict[str, Any]:
    """Return the settings for all components, overridden by those for this one ("unet.lora_alpha"…)."""
    prefixes = tuple(f"{name}." for name in COMPONENTS)
    common = {key: value for key, value in settings.items() if not key.startswith(prefixes)}
    start = f"{component}."
    return common | {key.removeprefix(start): value for key, value in settings.items() if key.startswith(start)}


def _numbers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is usable of settings in an unknown form, under PEFT's names."""
    numbers: dict[str, Any] = {}
    for name, others in (("lora_alpha", ALPHA_NAMES), ("r", RANK_NAMES)):
        if values := [settings[other] for other in others if _is_number(settings.get(other))]:
            numbers[name] = values[0]
    if any(settings.get(name) is True for name in FLAG_NAMES):
        numbers["use_rslora"] = True
    if isinstance(settings.get(INIT_NAME), str):
        numbers[INIT_NAME] = settings[INIT_NAME]
    for name in PATTERN_NAMES:
        pattern = settings.get(name)
        if isinstance(pattern, dict) and pattern and all(map(_is_number, pattern.values())):
            numbers[name] = pattern
    return numbers


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30 and math.isfinite(value)


def _settings(source: str, settings: Mapping[str, Any], trainer: Trainer) -> ScaleSettings:
    start = settings.get(INIT_NAME)
    if isinstance(start, str) and start.lower().startswith((*_CHANGED_BASE, _QUANTISED)):
        remedy = "save the adapter with path_initial_model_for_weight_conversion"
        if start.lower().startswith(_QUANTISED):  # PEFT cannot convert it
            remedy = "train it without that, or use it with its own base model"
        raise AdapterError(f"{source}: {INIT_NAME} is {shown(start)}, which changes the base model too; {remedy}")
    for name, meaning in _VARIANTS.items():
        if settings.get(name):
            raise AdapterError(f"{source}: {name} is set; the adapter is {meaning}, which is not supported")
    alpha_name = "alpha" if "lora_alpha" not in settings else "lora_alpha"  # LoRA's name for it, LoHa's and LoKr's
    return ScaleSettings(
        alpha=number_of(source, alpha_name, settings),
        alpha_pattern=patterns_of(source, "alpha_pattern", settings),
        rank_stabilised=flag_of(source, "use_rslora", settings),
        dora=flag_of(source, "use_dora", settings),
        raw=MappingProxyType(dict(settings)),
        source=source,
        trainer=trainer,
    )

"""The settings of a picture as text in AUTOMATIC1111's form, which image sites and other programs read.

    a fox <lora:ink:0.8>
    Negative prompt: blurry
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5, Seed: 7, Size: 1024x1024, Model: sdxl, …

The settings are the last line, which begins with "Steps: "; `lorablend.engine.settings` declares their keys. The tags
are those of `lorablend.adapters.blends.tags`, with names that every reader accepts; the record in the same file
(`lorablend.app.pictures.record`) has the adapters' real names.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from typing import Any

from lorablend.adapters import Blend, write_tags
from lorablend.adapters.errors import BlendError
from lorablend.adapters.forms import to_number
from lorablend.engine.request import Request
from lorablend.engine.schedulers.a1111 import read_sampler, read_schedule_type, schedule_type_of
from lorablend.engine.settings import SETTINGS, Setting

__all__ = ["Infotext", "parse_infotext", "read_settings", "write_infotext"]

# Those that share a key are neighbours.
_BY_KEY = {key: list(settings) for key, settings in groupby(SETTINGS.values(), lambda setting: setting.infotext) if key}
# AUTOMATIC1111's own reader, and Civitai's, but in linear time: the text is untrusted.
_SETTING = re.compile(r'(\w[\w \-/]{1,59}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_HASHES = re.compile(r", Hashes:\s*({[^{}]+})")
_LONGEST = 100_000  # characters of the settings; reading a megabyte takes half a second
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")  # characters of an adapter's name that Civitai's reader does not accept


@dataclass(frozen=True)
class Infotext:
    """A parsed text. The settings are strings as written, without their quotes."""

    prompt: str
    negative_prompt: str
    settings: dict[str, str]


def write_infotext(request: Request, blend: Blend, seed: int, model: str) -> str:
    """The text for the picture of one seed.

    Each adapter is hashed once, which reads its whole file.

    Args:
        request: The settings.
        blend: The adapters.
        seed: The picture's own.
        model: The name of the model's folder.
    """
    names = _tag_names(blend)
    adapters = {name: item.adapter for name, item in zip(names, blend, strict=True)}
    settings = {**_texts(request, seed, True), "Model": model, **_texts(request, seed, False)}
    if adapters:
        settings["Lora hashes"] = ", ".join(f"{name}: {adapter.autov3}" for name, adapter in adapters.items())
    settings["Version"] = f"lorablend {version('lorablend')}"
    pairs = [f"{name}: {_quote(value)}" for name, value in settings.items()]
    if adapters:  # not quoted, for Civitai; last, so that its commas and colons do not confuse other readers
        pairs.append("Hashes: " + json.dumps({f"lora:{name}": adapter.autov2 for name, adapter in adapters.items()}))
    lines = [" ".join(part for part in (request.prompt, *write_tags(blend, names)) if part)]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    return "\n".join([*lines, ", ".join(pairs)])


def parse_infotext(text: str) -> Infotext:
    """Parse text in this form by any program; text without settings, or with a line of far too many, is a prompt."""
    *lines, last = text.strip().split("\n")
    if len(last) > _LONGEST:
        lines, last = [*lines, last], ""
    plain, hashes = _HASHES.sub("", last), _HASHES.search(last)
    settings = {name: _unquote(value) for name, value in _SETTING.findall(plain)}
    if hashes:
        settings["Hashes"] = hashes[1]
    if len(settings) < 3:
        lines, settings = [*lines, last] if last else lines, {}
    prompt, _, negative = "\n".join(lines).partition("Negative prompt:")
    return Infotext(prompt.strip(), negative.strip(), settings)


def read_settings(texts: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Read the settings of a parsed text.

    Args:
        texts: `Infotext.settings`.

    Returns:
        Keywords of `Pipeline.generate`, and one line for each setting that cannot be read.
    """
    values, missing = _read_sampler(texts)
    for key, settings in _BY_KEY.items():
        if key not in texts or settings[0].name in values or "infotext" in settings[0].absent:
            continue
        parts = texts[key].split("x") if len(settings) > 1 else [texts[key]]
        read = {setting.name: _read(setting, part) for setting, part in zip(settings, parts, strict=False)}
        if len(parts) != len(settings) or None in read.values():
            missing.append(f'{key.lower()} "{texts[key][:40]}" cannot be read; it is left out')
        else:
            values |= read
    if "timesteps" in values:
        values.pop("steps", None)
    return values, missing


def _read_sampler(texts: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Scheduler and spacing, whose names are A1111's; some programs write both in one."""
    missing: list[str] = []
    scheduler, spacing = read_sampler(texts.get("Sampler", ""))
    if texts.get("Sampler") and scheduler is None:
        missing.append(f"the sampler {texts['Sampler']} is not here; the model's own is used")
    if name := texts.get("Schedule type"):
        schedule_type = read_schedule_type(name)
        if schedule_type is None:
            missing.append(f"the schedule type {name} is not here; the model's own is used")
        elif schedule_type.spacing is not None:
            spacing = schedule_type.spacing
    return {"scheduler": scheduler, "spacing": spacing}, missing


def _read(setting: Setting, text: str) -> Any:
    """The value that a text spells, or None."""
    if setting.kind is str:
        return text if not setting.choices or text in setting.choices else None
    if setting.kind is int:
        return int(text) if text.isdecimal() else None  # not by way of a float, which would round a seed
    try:
        numbers = tuple(to_number(part, setting.name) for part in text.split(","))
    except BlendError:
        return None
    return numbers if setting.kind is tuple else numbers[0] if len(numbers) == 1 else None


def _texts(request: Request, seed: int, in_every: bool) -> dict[str, str]:
    """The settings by their keys: those that are in every text, or the others."""
    texts: dict[str, str] = {}
    for key, settings in _BY_KEY.items():
        values = [seed if setting.name == "seed" else getattr(request, setting.name) for setting in settings]
        if settings[0].in_every_infotext is in_every and settings[0].is_worth_telling(values[0]):
            texts[key] = "x".join(map(_write, settings, values))
    return texts


def _write(setting: Setting, value: Any) -> str:
    if setting.name == "scheduler":
        return setting.choices[value]
    return schedule_type_of(value) if setting.name == "spacing" else setting.text(value)


def _tag_names(blend: Blend) -> list[str]:
    """One name per item that every reader accepts; two files with the same name are distinguished by their hashes."""
    owners: dict[str, str] = {}
    names = []
    for item in blend:
        name = _UNSAFE.sub("_", item.adapter.name)
        if owners.setdefault(name, item.adapter.sha256) != item.adapter.sha256:
            name = f"{name}_{item.adapter.autov2}"
        names.append(name)
    return names


def _quote(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]', value) else value


def _unquote(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value.strip()
    except ValueError:
        return value

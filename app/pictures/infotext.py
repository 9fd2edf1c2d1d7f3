"""The settings of a picture as text in AUTOMATIC1111's form, which image sites and other programs read.

    a fox <lora:ink:0.8>
    Negative prompt: blurry
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5, Seed: 7, Size: 1024x1024, Model: sdxl, …

The settings are one line, the last one in what A1111 writes; `lorablend.engine.settings` declares their keys. The tags
are those of `lorablend.adapters.blends.tags`, with names that every reader accepts; the record in the same file
(`lorablend.app.pictures.record`) has the adapters' real names.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from lorablend.adapters import Blend, write_tags
from lorablend.adapters.wording import shown
from lorablend.app.pictures.infotext_layout import BY_KEY, find_settings, negative_mark, parse_settings, tidied
from lorablend.app.pictures.metadata.found import Found
from lorablend.engine.request import Request
from lorablend.engine.schedulers.a1111 import schedule_type_of
from lorablend.engine.settings import Setting

__all__ = ["Infotext", "parse_infotext", "read_settings", "write_infotext"]

_LATER = re.compile(r"([A-Z][\w \-/]{1,59}):[ \t]*(.*)")  # a line behind the settings, as extensions write
_NEGATIVE_INSIDE = re.compile(r"(?<![^\s.,;>])Negative [Pp]rompt:[ \t]*")
_ENDS = " \t\n,.;|"  # of a prompt, before what follows in its line
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
    """Parse text in this form by any program; text without settings, or with a line of far too many, is a prompt.

    The words that begin the negative prompt count at the start of a line; only if all is on one line, they count inside
    it. A prompt may also stand behind the settings.
    """
    text = tidied(text)
    start, end, line, is_inside = find_settings(text)
    settings = parse_settings(line)
    mark = negative_mark(text)
    prompt, *negatives = mark.split(text[:start])
    if is_inside and not negatives and (marks := list(_NEGATIVE_INSIDE.finditer(prompt))):
        prompt, negatives = prompt[: marks[-1].start()], [prompt[marks[-1].end() :]]
    if is_inside:
        prompt, negatives = prompt.rstrip(_ENDS), [negative.rstrip(_ENDS) for negative in negatives]
    behind: list[str] = []
    for line in text[end:].splitlines():
        if mark.match(line):
            negatives.append(mark.sub("", line))
        elif later := _LATER.match(line):
            settings.setdefault(later[1].strip(), later[2].strip())
        elif line.strip():
            behind.append(line.strip())
    if behind and not prompt.strip():
        prompt = "\n".join(behind)
    elif behind:
        settings.setdefault("Text behind the settings", "\n".join(behind))
    return Infotext(prompt.strip(), "\n".join(negative.strip() for negative in negatives).strip(), settings)


def read_settings(texts: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Read the settings of a parsed text.

    Args:
        texts: `Infotext.settings`.

    Returns:
        Keywords of `Pipeline.generate`, and one line for each setting that cannot be read.
    """
    found = Found("")
    found.take_sampler(texts.get("Sampler"), texts.get("Schedule type", texts.get("Scheduler")))
    for key, settings in BY_KEY.items():
        if key not in texts or settings[0].name in ("scheduler", "spacing") or "infotext" in settings[0].absent:
            continue
        if len(settings) == 1:
            found.take(settings[0].name, texts[key], key)
        elif texts[key].count("x") == 1:
            found.take_size(*texts[key].split("x"))
        else:
            found.lacks(f'{key.lower()} "{shown(texts[key][:40])}" cannot be read; it is left out')
    if "timesteps" in found.settings:
        found.settings.pop("steps", None)
    return found.settings, found.missing


def _texts(request: Request, seed: int, in_every: bool) -> dict[str, str]:
    """The settings by their keys: those that are in every text, or the others."""
    texts: dict[str, str] = {}
    for key, settings in BY_KEY.items():
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

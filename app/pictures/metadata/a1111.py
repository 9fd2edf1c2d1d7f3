"""A1111's text as its many writers fill it: which program, which adapters, and what is not done here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lorablend.adapters.wording import shown
from lorablend.app.pictures.infotext import Infotext, parse_infotext, read_settings
from lorablend.app.pictures.metadata.found import START_LOST, Found, Mention, is_nothing, number
from lorablend.app.pictures.metadata.mentions import (
    from_pairs,
    from_resources,
    from_tags,
    mention_of,
    others_in,
    read_json,
    unite,
)
from lorablend.engine.settings import SETTINGS

__all__ = ["mentions_of", "read_a1111"]

_PROGRAMS = (  # by what they write behind Version, App and the like
    (r"lorablend", "lorablend"),
    (r"f\d|neo|forge", "Forge"),
    (r"fooocus", "Fooocus"),
    (r"comfy", "ComfyUI"),
    (r"sd\.?next", "SD.Next"),
    (r"stable-diffusion\.cpp", "stable-diffusion.cpp"),
    (r"v?1\.\d", "AUTOMATIC1111"),
)
_IN_THE_FORM = "AUTOMATIC1111 (or its form)"
# Settings by the beginning of their names; each group is one line. {} is all of them that the text has.
_GROUPS = {
    "Hires": "the second pass of the hires fix",
    "Variation seed": "the variation seed",
    "Refiner": "the refiner",
    "ADetailer": "ADetailer",
    "ControlNet": "ControlNet",
    "FreeU": "FreeU",
    "Tiled": "tiled diffusion",
    "RP ": "the regional prompter",
    "Inpaint": "inpainting",
    "Mask": "inpainting",
    "Masked": "inpainting",
    "Postprocess": "the enlargement afterwards",
    "Seed resize": "the resizing of the seed",
}
# What changes no picture: names and hashes of files, dates, texts that were expanded before.
_HARMLESS = (
    r"model hash|vae hash|refiner hash|version|app|backend|pipeline|operations|user|created date|created by|"
    r"date|time|time taken|execution( time)?|metadata( scheme)?( generator version)?|index|batch|.*template|"
    r"wildcard prompt|raw (negative )?prompt|styles?|job|software|source|comment|embedding.* hash|"
    r"civitai metadata|hardware info|cuda|device|torch|compute|latent sampler|size|model|hashes|"
    r"lora hashes|lora weights|lora networks|civitai resources|resources|addnet enabled|addnet separate weights|"
    r"module \d+ hash"
)
_NUMBERED = (
    # SaveImageWithMetaData and its forks
    (r"Lora_(\d+) Model name", "Lora_{} Strength model", "Lora_{} Strength clip", "Lora_{} Model hash"),
    # Additional Networks: A is the UNet, B the text encoder; the name is followed by the hash in brackets
    (r"AddNet Model (\d+)", "AddNet Weight A {}", "AddNet Weight B {}", ""),
    (r"AddNet Model (\d+)", "AddNet Weight {}", "", ""),
    (r"Lora (\d+) name", "Lora {} weight", "", "Lora {} hash"),
    (r"LoRA (\d+) Name", "LoRA {} Weight", "", "LoRA {} Hash"),
)
_CHECKPOINTS = ("checkpoint", "model", "checkpoint merge")
_LORA_KEY = re.compile(r"(?<![a-z])(lora|lyco|lycoris|locon|addnet)(?![a-z])", re.IGNORECASE)
_HASHED = re.compile(r"(.*)\(([0-9a-fA-F]{8,64})\)\s*")
_NEUTRAL = {
    "Clip skip": ("1",),
    "ENSD": ("0",),
    "CFG rescale": ("0", "0.0"),
    "Parser": ("native", "full parser", "Full parser"),
    "Performance": ("Speed", "Quality"),  # Fooocus loads an adapter for the others
}
_EMBEDDINGS = ("TI hashes", "TI", "Embeddings", "Used embeddings", "Embedding")


def read_a1111(text: str) -> Found | None:
    """Read a text in A1111's form; None if it has no settings and no tags, so that it may be any text."""
    parsed = parse_infotext(text)
    if not parsed.settings and "<lora:" not in text:
        return None
    found = Found(_program(parsed.settings), text=text)
    prompt, tags, modes = from_tags(found, parsed.prompt)
    found.take("prompt", prompt)
    if parsed.negative_prompt:
        found.take("negative_prompt", parsed.negative_prompt)
        for mention in from_tags(Found(""), parsed.negative_prompt)[1]:
            found.lacks(f"the adapter {shown(mention.name)} is named in the negative prompt, where it changes nothing")
    settings, missing = read_settings(parsed.settings)
    found.settings |= settings
    for line in missing:
        found.lacks(line)
    _take_model(found, parsed.settings)
    found.take_adapters(unite(tags, *_lists(parsed.settings)), modes)
    _name_other_files(found, parsed.settings)
    _name_what_is_not_done(found, parsed)
    return found


def mentions_of(text: str) -> list[Mention]:
    """The adapters that a text in A1111's form names."""
    parsed = parse_infotext(text)
    return unite(from_tags(Found(""), parsed.prompt)[1], *_lists(parsed.settings))


def _program(settings: Mapping[str, str]) -> str:
    said = " ".join(settings.get(key, "") for key in ("App", "Version", "Software", "Metadata generator version"))
    for pattern, name in _PROGRAMS:
        if re.match(pattern, said.strip(), re.IGNORECASE):
            return name
    return "Civitai" if "Civitai resources" in settings else _IN_THE_FORM


def _lists(settings: Mapping[str, str]) -> Iterator[list[Mention]]:
    """The lists of adapters beside the tags, those with weights first."""
    yield list(from_pairs(settings.get("Lora weights", "")))
    yield from _numbered(settings)
    for resources in _resources(settings):
        yield list(from_resources(resources))
    for key in ("Lora hashes", "LoRA hashes", "Lora networks", "LoRA networks"):
        yield list(from_pairs(settings.get(key, "")))
    hashes = read_json(settings.get("Hashes", ""))
    kinds = ((key.partition(":"), value) for key, value in hashes.items()) if isinstance(hashes, dict) else ()
    named = (mention_of(name, digest=value) for (kind, _, name), value in kinds if _LORA_KEY.fullmatch(kind))
    yield [mention for mention in named if mention]


def _resources(settings: Mapping[str, str]) -> Iterator[Any]:
    metadata = read_json(settings.get("Civitai metadata", ""))
    yield read_json(settings.get("Civitai resources", ""))
    yield read_json(settings.get("resources", settings.get("Resources", "")))
    if isinstance(metadata, dict):
        yield metadata.get("resources")
        yield metadata.get("additionalResources")


def _take_model(found: Found, settings: Mapping[str, str]) -> None:
    """The model by its name, else by its title in a list of resources; a hash alone is said."""
    titles = (entry.name for resources in _resources(settings) for entry in from_resources(resources, _CHECKPOINTS))
    name = settings.get("Model") or next(titles, "")
    found.take_model(name)
    hashes = read_json(settings.get("Hashes", ""))
    digest = settings.get("Model hash") or (hashes.get("model") if isinstance(hashes, dict) else None)
    if "model" not in found.settings and isinstance(digest, str) and not is_nothing(digest):
        found.lacks(f"the model is named by its hash alone ({shown(digest)}); it is left out")


def _name_other_files(found: Found, settings: Mapping[str, str]) -> None:
    """Embeddings, hypernetworks and other files that changed the picture, wherever they are named."""
    for key in _EMBEDDINGS:
        for part in settings.get(key, "").split(","):
            name = part.partition(":")[0].partition("[")[0].strip()
            if not is_nothing(name):
                found.lacks(f"the embedding {shown(name)} is not used; its word is drawn as plain text")
    hashes = read_json(settings.get("Hashes", ""))
    for key in hashes if isinstance(hashes, dict) else ():
        kind, _, name = str(key).partition(":")
        if kind.startswith("embed"):
            found.lacks(f"the embedding {shown(name)} is not used; its word is drawn as plain text")
        elif kind == "hypernet":
            found.lacks(f"the hypernetwork {shown(name)} is not used")
        elif kind == "vae" and "VAE" not in settings:
            found.lacks("a VAE that is named by its hash alone is not used; the model's own is")
    for resources in _resources(settings):
        for kind, name in others_in(resources):
            found.lacks(f"the {shown(kind)} {shown(name)} is not used")


def _numbered(settings: Mapping[str, str]) -> Iterator[list[Mention]]:
    """Adapters with a key for each of their values; a list for each way to name the keys."""
    seen = set[str]()
    is_off = settings.get("AddNet Enabled", "True").casefold() == "false"
    for pattern, weight, text_encoder, digest in _NUMBERED:
        mentions: list[Mention] = []
        if is_off and pattern.startswith("AddNet"):
            continue
        for key, name in settings.items():
            match = re.fullmatch(pattern, key)
            if not match or key in seen or (weight.format(match[1]) not in settings and "Weight A" in weight):
                continue
            seen.add(key)
            hashed = _HASHED.fullmatch(name)
            values = (settings.get(template.format(match[1])) for template in (weight, text_encoder, digest))
            mention = mention_of(hashed[1] if hashed else name, *values)
            if mention:
                mentions.append(replace(mention, digest=hashed[2][:12].lower()) if hashed else mention)
        yield mentions
    # Fooocus: "LoRA 1: ink : 0.8", from 2.5 on "True : ink : 0.8"
    fooocus = (combined(value) for key, value in settings.items() if re.fullmatch(r"LoRA \d+|lora_combined_\d+", key))
    yield [mention for mention in fooocus if mention]


def combined(value: str) -> Mention | None:
    """Read Fooocus' way to write an adapter in one value; None if it is off."""
    parts = [part.strip() for part in value.split(" : ")]
    if len(parts) == 3:
        if parts[0] != "True":
            return None
        parts = parts[1:]
    return mention_of(parts[0], parts[1] if len(parts) > 1 else None)


def _name_what_is_not_done(found: Found, parsed: Infotext) -> None:
    groups: dict[str, list[str]] = {}
    read = {setting.infotext for setting in SETTINGS.values() if "infotext" not in setting.absent} | {"Scheduler"}
    for key, value in parsed.settings.items():
        group = next((group for group in _GROUPS if key.startswith(group)), None)
        if key in read or key in _EMBEDDINGS or is_nothing(value) or value in _NEUTRAL.get(key, ()):
            continue
        if group:
            groups.setdefault(_GROUPS[group], []).append(f"{key} {value[:40]}")
        elif key == SETTINGS["strength"].infotext:
            if not any(name.startswith("Hires") for name in parsed.settings):
                found.lacks(START_LOST)
        elif key == "VAE":
            found.lacks(f"the VAE {shown(value[:80])} is not used; the model's own is")
        elif _LORA_KEY.search(key):
            if not _is_read(key):
                found.lacks(f'{key} ("{shown(value[:80])}") is not read')
        elif not re.fullmatch(_HARMLESS, key, re.IGNORECASE):
            found.ignores(key, value)
    for words, values in groups.items():
        if words != "the variation seed" or number(parsed.settings.get("Variation seed strength", "1")) != 0:
            found.lacks(f"{words} is not done here ({shown(', '.join(values))})")


def _is_read(key: str) -> bool:
    """Whether the adapters that a key names are read, or the key belongs to one that is."""
    if re.fullmatch(_HARMLESS, key, re.IGNORECASE) or re.fullmatch(r"LoRA \d+|lora_combined_\d+", key):
        return True
    names = (pattern for pattern, *_ in _NUMBERED)
    rest = (template.replace("{}", r"\d+") for _, *templates in _NUMBERED for template in templates if template)
    return any(re.fullmatch(pattern, key) for pattern in (*names, *rest, r"AddNet Module \d+"))

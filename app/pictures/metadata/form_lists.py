"""What is special in the programs that write one object: how they list adapters, and what else they say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from lorablend.adapters.wording import shown
from lorablend.app.pictures.metadata.a1111 import combined
from lorablend.app.pictures.metadata.found import Found, Mention, is_nothing, stem
from lorablend.app.pictures.metadata.mentions import from_resources, in_rows, mention_of, read_json

__all__ = [
    "Data",
    "civitai_adapters",
    "diffusers_adapters",
    "draw_things_adapters",
    "draw_things_notes",
    "easy_adapters",
    "fooocus_adapters",
    "fooocus_notes",
    "invoke_adapters",
    "invoke_notes",
    "joined",
    "model_name",
    "mre_adapters",
    "novelai_notes",
    "ruined_adapters",
    "swarm_adapters",
    "swarm_notes",
    "tensorart_adapters",
]

Data: TypeAlias = Mapping[str, Any]
_SWARM_PART = re.compile(r"<(segment|region|object|refiner|base|video|videoswap|edit|clear|extend)\b[^<>]*>")
_SWARM_SYNTAX = re.compile(r"<(?!lora\b)[a-z]\w*(?:\[[^\[\]<>]*\])?(?::[^<>]*)?/?>", re.IGNORECASE)
_NAMELESS = "without a name"


def joined(prompt: Any) -> Any:
    """A prompt in parts as one text."""
    return ", ".join(map(str, prompt)) if isinstance(prompt, list) else prompt


def model_name(model: Any) -> Any:
    if isinstance(model, Mapping):
        keys = ("name", "model_name", "modelFileName", "Model", "key", "label")
        return next((model[key] for key in keys if isinstance(model.get(key), str)), None)
    return model


def _listed(value: Any) -> list[Any]:
    """A list, as itself, in JSON or Python, or as words with commas between them."""
    if isinstance(value, list | tuple):
        return list(value)
    if not isinstance(value, str):
        return [] if value is None else [value]
    if value.lstrip().startswith("["):
        try:
            read = ast.literal_eval(value.strip()[:100_000])
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            read = None
        if isinstance(read, list):
            return read
    return [part.strip() for part in value.split(",")]


def _parallel(names: Any, weights: Any, text_encoders: Any = None) -> Iterator[Mention]:
    """Adapters whose names and weights are in lists of their own."""
    listed = [_listed(values) for values in (names, weights, text_encoders)]
    for place, name in enumerate(listed[0]):
        weight, text_encoder = (values[place] if place < len(values) else None for values in listed[1:])
        if mention := mention_of(name, weight, text_encoder):
            yield mention


def swarm_adapters(found: Found, data: Data) -> Iterable[list[Mention]]:
    """Parallel lists. Confined to a section, an adapter is not on everywhere: -1, 0 and 5 (the base model) are."""
    sections = _listed(data.get("lorasectionconfinement"))
    mentions: list[Mention] = []
    every = list(_listed(data.get("loras")))
    hashes = {
        stem(str(entry.get("name", ""))): entry.get("hash")
        for entry in _entries(data.get("sui_models"))
        if isinstance(entry, Mapping)
    }
    weights, text_encoders = _listed(data.get("loraweights")), _listed(data.get("loratencweights"))
    objects = [entry for entry in every if isinstance(entry, Mapping | list)]
    if objects:
        return [in_rows(found, objects, "loras")]
    for place, name in enumerate(every):
        weight = weights[place] if place < len(weights) else 1
        text_encoder = text_encoders[place] if place < len(text_encoders) else None
        mention = mention_of(name, weight, text_encoder, hashes.get(stem(str(name)), ""))
        section = str(sections[place]).strip() if place < len(sections) else ""
        if mention and section not in ("", "-1", "0", "5"):
            found.lacks(f"the adapter {shown(mention.name)} is for section {shown(section)} only; it is left out")
        elif mention:
            mentions.append(mention)
    return [mentions]


def fooocus_adapters(found: Found, data: Data) -> Iterable[list[Mention]]:
    """Lists of name, weight and hash; and a key for each, "name : weight"."""
    named = in_rows(found, data.get("loras"), "loras")
    numbered = (
        combined(value)
        for key, value in data.items()
        if re.fullmatch(r"(lora_combined_|LoRA )\d+", key) and isinstance(value, str)
    )
    return [[mention for mention in mentions if mention] for mentions in (named, numbered)]


def ruined_adapters(_found: Found, data: Data) -> Iterable[list[Mention]]:
    """A text, "Loras:<ink.safetensors:0.8>"; or from 2.0 on rows of a hash and "0.8 - ink.safetensors"."""
    loras = data.get("loras")
    if isinstance(loras, str):
        pairs = re.findall(r"<(?:lora:)?([^<>]+):([^<>:]*)>", loras)
        mentions = [mention_of(name, weight) for name, weight in pairs]
    else:
        mentions = []
        for row in _rows(loras):
            weight, dash, name = str(row[1] if len(row) > 1 else "").partition(" - ")
            mentions.append(mention_of(name, weight, digest=row[0]) if dash else mention_of(row[0], weight))
    return [[mention for mention in mentions if mention]]


def mre_adapters(found: Found, data: Data) -> Iterable[list[Mention]]:
    """A list of name and weight, or keys for each, l1 and w1."""
    numbered = (
        mention_of(name, data.get(f"w{key[1:]}")) for key, name in data.items() if re.fullmatch(r"l\d+", str(key))
    )
    return [in_rows(found, data.get("loras"), "loras"), [mention for mention in numbered if mention]]


def tensorart_adapters(found: Found, data: Data) -> Iterable[list[Mention]]:
    """A list of files with their types."""
    rows = [row for row in _entries(data.get("models")) if isinstance(row, Mapping)]
    for row in rows:
        if str(row.get("type")).upper() not in ("LORA", "LYCORIS", "LOCON", "DORA", "BASE_MODEL", "CHECKPOINT"):
            found.lacks(f"the {shown(str(row.get('type')).lower())} {shown(str(row.get('label')))} is not used")
    return [in_rows(found, [row for row in rows if str(row.get("type")).upper()[:2] in ("LO", "LY", "DO")], "models")]


def diffusers_adapters(found: Found, data: Data) -> Iterable[list[Mention]]:
    """One object, or a list of them or of names."""
    used = data.get("use_lora", data.get("loras", data.get("lora")))
    return [in_rows(found, used if isinstance(used, list) else [] if is_nothing(used) else [used], "lora")]


def civitai_adapters(found: Found, data: Data) -> Iterable[list[Mention]]:
    """A list of versions, whose kinds are in the AIRs beside it."""
    airs = {air.rpartition("@")[2]: air for air in _entries(data.get("airs")) if isinstance(air, str)}
    entries = [
        {"air": airs.get(str(entry.get("modelVersionId")), ""), **entry}
        for entry in _entries(data.get("resources"))
        if isinstance(entry, Mapping)
    ]
    for entry in entries:
        if not entry["air"] and "type" not in entry:
            version, strength = (shown(str(entry.get(key))) for key in ("modelVersionId", "strength"))
            found.lacks(f"Civitai version {version} (strength {strength}), of an unknown kind, is left out")
    return [list(from_resources(entries))]


def invoke_adapters(_found: Found, data: Data) -> Iterable[list[Mention]]:
    mentions = []
    for row in _entries(data.get("loras")):
        if isinstance(row, Mapping) and row.get("is_enabled", row.get("isEnabled", True)) is not False:
            model = row.get("model", row.get("lora", row))
            name = model_name(model) or row.get("model_name")
            digest = model.get("hash", "") if isinstance(model, Mapping) else ""
            digest = digest.rpartition(":")[2] if str(digest).startswith("sha256:") else ""  # most are of BLAKE3
            mentions.append(mention_of(name or _NAMELESS, row.get("weight", row.get("strength")), digest=digest))
    return [[mention for mention in mentions if mention]]


def easy_adapters(_found: Found, data: Data) -> Iterable[list[Mention]]:
    names, weights = (
        next((data[key] for key in keys if key in data), None)
        for keys in (("use_lora_model", "LoRA model"), ("lora_alpha", "LoRA Strength"))
    )
    return [list(_parallel(names, weights))]


def draw_things_adapters(_found: Found, data: Data) -> Iterable[list[Mention]]:
    lists = []
    config = data.get("v2")
    for rows in (data.get("lora"), config.get("loras") if isinstance(config, Mapping) else None):
        named = (
            mention_of(row.get("model", row.get("file")) or _NAMELESS, row.get("weight"))
            for row in _entries(rows)
            if isinstance(row, Mapping)
        )
        lists.append([mention for mention in named if mention])
    return lists


def fooocus_notes(found: Found, data: Data) -> None:
    """Its styles add words to the prompt, and all but two of its performances an adapter."""
    performance = data.get("performance", data.get("Performance"))
    if not is_nothing(performance) and str(performance) not in ("Speed", "Quality"):
        found.ignores("performance", performance)
    for key, prompt in (
        ("full_prompt", "prompt"),
        ("full_negative_prompt", "negative_prompt"),
        ("real_prompt", "prompt"),
        ("real_negative_prompt", "negative_prompt"),
    ):
        full = joined(data.get(key))
        if not is_nothing(full) and full != data.get(prompt):
            found.lacks(f'the words that styles added are left out: "{shown(str(full))}"')


def invoke_notes(found: Found, data: Data) -> None:
    """SDXL's second text encoder may have a prompt of its own."""
    for key, prompt in (("positive_style_prompt", "positive_prompt"), ("negative_style_prompt", "negative_prompt")):
        style = data.get(key)
        if not is_nothing(style) and style != data.get(prompt):
            found.lacks(f'the {key.replace("_", " ")} is left out: "{shown(str(style))}"')


def draw_things_notes(found: Found, data: Data) -> None:
    """Its whole configuration repeats what is read, beside much that has its neutral value."""
    config = data.get("v2")
    for key in ("hiresFix", "upscaler", "refinerModel", "controls", "faceRestoration", "clipSkip", "tiledDiffusion"):
        value = config.get(key) if isinstance(config, Mapping) else None
        if not is_nothing(value) and not (key == "clipSkip" and value == 1):
            found.ignores(key, value)


def novelai_notes(found: Found, data: Data) -> None:
    if re.search(r"[{\[]|::", str(data.get("prompt", ""))):
        found.lacks("NovelAI's brackets for emphasis are not its weights here")
    for key in ("v4_prompt", "v4_negative_prompt"):
        caption = data[key].get("caption") if isinstance(data.get(key), Mapping) else None
        others = caption.get("char_captions") if isinstance(caption, Mapping) else None
        for other in _entries(others):
            words = other.get("char_caption") if isinstance(other, Mapping) else other
            if not is_nothing(words):
                found.lacks(f'the prompt of a character is left out: "{shown(str(words))}"')


def swarm_notes(found: Found, _data: Data) -> None:
    """Parts of its prompt are for a region, a segment or another model; the others come before them."""
    for key in ("prompt", "negative_prompt"):
        text = found.settings.get(key, "")
        part = _SWARM_PART.search(text)
        if part:
            found.settings[key] = text[: part.start()].strip()
            found.lacks(f'a part of the {key.replace("_", " ")} is left out: "{shown(text[part.start() :])}"')
        for syntax in _SWARM_SYNTAX.findall(found.settings.get(key, "")):
            found.lacks(f"SwarmUI's {shown(syntax)} is drawn as plain text")


def _entries(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _rows(value: Any) -> Iterator[list[Any]]:
    value = read_json(value) if isinstance(value, str) else value
    for row in _entries(value):
        if isinstance(row, list) and row:
            yield row

"""The adapters that ComfyUI's nodes load, those of other authors too, by what their inputs are called.

one adapter     LoraLoader: lora_name, strength_model, strength_clip
numbered        CR LoRA Stack, Efficiency's and Easy Use's stacks, rgthree's stack: lora_name_1, model_weight_1…
objects         rgthree's Power Lora Loader, Lora Manager: {"on": true, "lora": …, "strength": …}
tags            loaders of tags, Impact Pack's wildcards: a text with <lora:…>
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lorablend.app.pictures.metadata.found import Found, Mention, number
from lorablend.app.pictures.metadata.graph import Graph, Node
from lorablend.app.pictures.metadata.mentions import from_tags, mention_of, unite

__all__ = ["adapters_in", "is_loader", "unread_files", "without_clip"]

_FILE = re.compile(r".+\.(safetensors|ckpt|pt|pth|bin|sft)\s*", re.IGNORECASE)
_NO_NAME = re.compile(
    r"stack|syntax|mode|count|num|preset|keyword|trigger|text|info|prompt|weight|strength|block|loader"
)
_WEIGHT = re.compile(r"weight|strength|multiplier|(?<![a-z])(wt|str)(?![a-z])")
_CLIP = re.compile(r"clip|(?<![a-z])te(?![a-z])|two")
_SWITCH = re.compile(r"(lora_?)?(switch|on|enabled?|is_enabled|toggle|active|use)(_?lora)?_?\d*")
_OFF = ("off", "false", "no", "disable", "disabled", "0")
_COUNTS = ("lora_count", "num_loras")


def is_loader(node: Node) -> bool:
    """Whether the node may load adapters by the tags in its text."""
    return bool(re.search(r"lora|wildcard|prompt ?control", node.kind, re.IGNORECASE)) or (
        "model" in node.inputs and "clip" in node.inputs
    )


def adapters_in(graph: Graph, node: Node, found: Found) -> list[Mention]:
    """The adapters that a node itself turns on. What cannot be read of its tags is named in `found`."""
    values = {key: graph.constant(value, key) for key, value in node.inputs.items()}
    if any(_SWITCH.fullmatch(key.lower()) and not _slot(key) and _is_off(value) for key, value in values.items()):
        return []
    objects = list(_objects(values))
    named = [mention for mention, is_on in objects if is_on] or list(_slots(values))
    off = {mention.name for mention, is_on in objects if not is_on}
    tags: list[Mention] = []
    if is_loader(node):
        texts = [value for key, value in values.items() if isinstance(value, str) and key != "wildcard_text"]
        if "populated_text" not in values:  # else the same text before its wildcards were drawn
            texts.append(str(values.get("wildcard_text") or ""))
        for text in texts:
            if "<lora" in text.lower():
                tags += from_tags(found, text)[1]
    return unite(named, [tag for tag in tags if tag.name not in off])


def unread_files(graph: Graph, node: Node) -> list[str]:
    """The files that a node for adapters names in inputs that are called otherwise than those that are read."""
    values = {key: graph.constant(value, key) for key, value in node.inputs.items()}
    if "lora" not in node.kind.lower() or list(_objects(values)) or any(map(_is_name, values)):
        return []
    return [value for value in values.values() if isinstance(value, str) and _FILE.fullmatch(value)]


def _objects(values: Mapping[str, Any]) -> Iterator[tuple[Mention, bool]]:
    """Adapters as objects, inputs of their own or in a list; and whether each is on."""
    for value in values.values():
        rows = value.get("__value__", [value]) if isinstance(value, dict) else value
        for row in rows if isinstance(rows, list) else ():
            if not isinstance(row, dict):
                continue
            name = next((row[key] for key in ("lora", "lora_name", "name") if isinstance(row.get(key), str)), None)
            weight = next((row[key] for key in ("strength", "strength_model", "weight") if key in row), None)
            clip = next((row[key] for key in ("strengthTwo", "clipStrength", "strength_clip") if key in row), None)
            is_on = not any(_is_off(row[key]) for key in ("on", "active", "enabled") if key in row)
            if name and weight is not None and (mention := mention_of(name, weight, clip)):
                yield mention, is_on


def _slots(values: Mapping[str, Any]) -> Iterator[Mention]:
    """Adapters whose name, weights and switch share a number; or have none."""
    mode = str(values.get("input_mode", values.get("mode", ""))).lower()
    counts = [count for key in _COUNTS if (count := number(values.get(key))) is not None]
    names: dict[str, list[str]] = {}
    others: dict[str, dict[str, Any]] = {}  # weights and switches, by slot, so that each input is looked at once
    for key, value in values.items():
        if isinstance(value, str) and _is_name(key) and (_FILE.fullmatch(value) or "name" in key.lower()):
            names.setdefault(_slot(key), []).append(value)
        else:
            others.setdefault(_slot(key), {})[key.lower()] = value
    for slot, files in names.items():
        of_slot = others.get(slot, {})
        if counts and slot and float(slot) > counts[0]:
            continue
        if slot and any(_SWITCH.fullmatch(other) and _is_off(value) for other, value in of_slot.items()):
            continue
        weights = {other: value for other, value in of_slot.items() if _WEIGHT.search(other)}
        clip = [value for other, value in weights.items() if _CLIP.search(other)]
        both = [value for other, value in weights.items() if not _CLIP.search(other) and "model" not in other]
        model = [value for other, value in weights.items() if "model" in other and not _CLIP.search(other)]
        if both and ("simple" in mode or not model):
            model, clip = both, clip if "strength_model" in weights or not model else []
        for file in files:
            if mention := mention_of(file, model[0] if model else None, clip[0] if clip else None):
                yield mention


def _is_name(key: str) -> bool:
    return "lora" in key.lower() and not _NO_NAME.search(key.lower())


def without_clip(mention: Mention) -> Mention:
    """The same, for the UNet alone."""
    return replace(mention, fields={**mention.fields, "text_encoder": 0.0})


def _slot(key: str) -> str:
    return "".join(re.findall(r"\d+", key)).lstrip("0")


def _is_off(value: Any) -> bool:
    return value is False or value == 0 or (isinstance(value, str) and value.strip().lower() in _OFF)

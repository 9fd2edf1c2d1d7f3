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

from lorablend.adapters.wording import shown
from lorablend.app.pictures.metadata.found import Found, Mention, is_nothing, number, stem
from lorablend.app.pictures.metadata.graph import Graph, Node
from lorablend.app.pictures.metadata.mentions import from_tags, mention_of, unite

__all__ = ["adapters_in", "is_loader", "unread", "without_clip"]

_FILE = re.compile(r".+\.(safetensors|ckpt|pt|pth|bin|sft)\s*", re.IGNORECASE)
_NO_NAME = re.compile(
    r"stack|syntax|mode|count|num|preset|keyword|trigger|text|info|prompt|weight|strength|block|loader"
)
_WEIGHT = re.compile(r"weight|strength|multiplier|(?<![a-z])(wt|str)(?![a-z])")
_CLIP = re.compile(r"clip|(?<![a-z])te(?![a-z])|two")
_SWITCH = re.compile(r"(lora_?)?(switch|on|enabled?|is_enabled|toggle|active|use)(_?lora)?_?\d*")
_OFF = ("off", "false", "no", "disable", "disabled", "0")
_COUNTS = ("lora_count", "num_loras")
_AIR = re.compile(r"\d+@\d+|urn:air:\S+")  # Civitai's names of files
_NAMES = ("lora", "lora_name", "name")  # in objects
_LINES = re.compile(r"\s*[^\s:,<>][^:,<>\n]*[:,]\s*-?\d*\.?\d+\s*([:,\n].*)?", re.DOTALL)  # "ink: 0.8"
_SCHEDULED = re.compile(r"\[[^\[\]]*<lora[^\[\]]*:[^\[\]]*\]", re.IGNORECASE)  # prompt control's [<lora:ink:1>::0.5]
_BLOCKS = ("block_vector", "blocks", "lbw", "block_weights")


def is_loader(node: Node) -> bool:
    """Whether the node may load adapters by the tags in its text."""
    return bool(re.search(r"lora|wildcard|prompt ?control", node.kind, re.IGNORECASE)) or (
        any("model" in key for key in node.inputs) and any("clip" in key for key in node.inputs)
    )


def adapters_in(graph: Graph, node: Node, found: Found) -> list[Mention]:
    """The adapters that a node itself turns on. What cannot be read of its tags is named in `found`."""
    values = {key: graph.constant(value, key) for key, value in node.inputs.items()}
    if _is_bypassed(values):
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
            if _SCHEDULED.search(text):
                found.lacks(f"the schedules around the tags in the node {shown(node.kind)} are left out")
    blocks = next((values[key] for key in _BLOCKS if isinstance(values.get(key), str)), "")
    if named and set(blocks.replace(" ", "").split(",")) - {"", "1", "1.0"}:
        found.lacks(f"the block weights of {shown(named[0].name)} in the node {shown(node.kind)} are left out")
    return unite(named, [tag for tag in tags if tag.name not in off])


def unread(graph: Graph, node: Node) -> Iterator[str]:
    """A line for each adapter of a node for adapters that is not read: computed, or in a form that is not known."""
    values = {key: graph.constant(value, key) for key, value in node.inputs.items()}
    if "lora" not in node.kind.lower() or _is_bypassed(values):
        return
    is_read = bool(adapters_in(graph, node, Found("")))
    for key, value in values.items():
        before = graph.at(value)
        if before is not None:
            if _is_name(key) and not adapters_in(graph, before, Found("")):
                yield f"an adapter in the node {shown(node.kind)} is computed in the graph"
        elif is_read or is_nothing(value) or re.search("widget|header", key, re.IGNORECASE):
            continue
        elif isinstance(value, str) and _FILE.fullmatch(value):
            yield f"the adapter {shown(stem(value))} in the node {shown(node.kind)} is not read"
        elif _is_listing(value):
            yield f"the adapters in the node {shown(node.kind)} are not read ({shown(str(value)[:80])})"


def _is_listing(value: Any) -> bool:
    """Whether a value lists adapters in a form of its own: lines such as "ink: 0.8", JSON, or lists without names."""
    if isinstance(value, str):
        return bool(_LINES.fullmatch(value)) or value.lstrip().startswith(("[{", '["', '{"'))
    inner = value.get("__value__", value) if isinstance(value, dict) else value
    return (
        isinstance(value, list | dict)
        and bool(inner)
        and not any(name in row for row in _rows(value) for name in _NAMES)
    )


def _is_bypassed(values: Mapping[str, Any]) -> bool:
    """Whether a node as a whole is off."""
    return values.get("bypass") is True or any(
        _SWITCH.fullmatch(key.lower()) and not _slot(key) and _is_off(value) for key, value in values.items()
    )


def _rows(value: Any) -> Iterator[Mapping[str, Any]]:
    """The objects in an input: itself, or those in it."""
    if isinstance(value, dict) and not any(isinstance(value.get(key), str) for key in _NAMES):
        value = value.get("__value__", list(value.values()))
    for row in value if isinstance(value, list) else [value]:
        if isinstance(row, dict):
            yield row


def _objects(values: Mapping[str, Any]) -> Iterator[tuple[Mention, bool]]:
    """Adapters as objects, inputs of their own or in a list; and whether each is on."""
    for value in values.values():
        for row in _rows(value):
            name = next((row[key] for key in _NAMES if isinstance(row.get(key), str)), None)
            weight = next((row[key] for key in ("strength", "strength_model", "weight") if key in row), None)
            clip = next((row[key] for key in ("strengthTwo", "clipStrength", "strength_clip") if key in row), None)
            is_on = not any(_is_off(row[key]) for key in ("on", "active", "enabled") if key in row)
            if name and weight is not None and (mention := mention_of(name, weight, clip)):
                yield mention, is_on


def _slots(values: Mapping[str, Any]) -> Iterator[Mention]:
    """Adapters whose name, weights and switch share a number; or have none."""
    mode = str(values.get("input_mode", values.get("mode", ""))).lower()
    counts = [count for key in _COUNTS if (count := number(values.get(key))) is not None]
    names: dict[str, list[tuple[str, str]]] = {}
    others: dict[str, dict[str, Any]] = {}  # weights and switches, by slot, so that each input is looked at once
    for key, value in values.items():
        if isinstance(value, str) and _is_name(key) and (_is_file(key, value) or _is_air(key, value)):
            names.setdefault(_slot(key), []).append((key, value))
        else:
            others.setdefault(_slot(key), {})[key.lower()] = value
    for slot, files in names.items():
        of_slot = others.get(slot, {})
        if counts and slot.isdigit() and int(slot) > counts[0]:
            continue
        if slot and any(_SWITCH.fullmatch(other) and _is_off(value) for other, value in of_slot.items()):
            continue
        weights = {other: value for other, value in of_slot.items() if _WEIGHT.search(other)}
        clip = [value for other, value in weights.items() if _CLIP.search(other)]
        both = [value for other, value in weights.items() if not _CLIP.search(other) and "model" not in other]
        model = [value for other, value in weights.items() if "model" in other and not _CLIP.search(other)]
        if both and ("simple" in mode or not model):
            model, clip = both, clip if "strength_model" in weights or not model else []
        named = sum(_is_name(key) and not is_nothing(value) for key, value in (*files, *of_slot.items()))
        for key, file in files:
            if not _is_file(key, file) and named > (not is_nothing(file)):
                continue  # an address beside the name
            if mention := mention_of(file, model[0] if model else None, clip[0] if clip else None):
                yield mention


def _is_file(key: str, value: str) -> bool:
    return bool(_FILE.fullmatch(value)) or "name" in key.lower()


def _is_air(key: str, value: str) -> bool:
    """Whether it is Civitai's address of an adapter."""
    return bool(_AIR.fullmatch(value)) and not key.lower().endswith("name")


def _is_name(key: str) -> bool:
    return "lora" in key.lower() and not _NO_NAME.search(key.lower())


def without_clip(mention: Mention) -> Mention:
    """The same, for the UNet alone."""
    return replace(mention, fields={**mention.fields, "text_encoder": 0.0})


def _slot(key: str) -> str:
    """The number of an input, or its letter, as in lora_b."""
    letter = re.search(r"_([a-h])$", key)
    return "".join(re.findall(r"\d+", key)).lstrip("0") or (letter[1] if letter else "")


def _is_off(value: Any) -> bool:
    return value is False or value == 0 or (isinstance(value, str) and value.strip().lower() in _OFF)

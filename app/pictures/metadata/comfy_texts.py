"""The prompts in a ComfyUI graph: from a sampler's conditioning back to the texts that were encoded."""

from __future__ import annotations

import re
from typing import Any

from lorablend.adapters.wording import shown
from lorablend.app.pictures.metadata.found import Found
from lorablend.app.pictures.metadata.graph import Graph, Node

__all__ = ["find_text"]

_ZERO = "ConditioningZeroOut"
_MOST = 200  # nodes on the way
# Inputs that hold a text or lead to one, those of encoders first. The others of a pair, which are named as left out:
_TEXTS = ("populated_text", "text", "text_g", "text_l", "prompt", "wildcard_text", "string", "value", "string_a")
_ON = ("conditioning", "conditioning_1", "conditioning_to", "cond1", "any", "source", "input")
_SECOND = ("conditioning_2", "conditioning_from", "cond2")
_NO_TEXT = ("clip", "model", "vae", "control_net", "image", "mask", "samples", "latent_image", *_SECOND)
_NO_TEXT += ("positive", "negative")  # but for the side that is followed
_PLAIN = re.compile(r"Encode|Reroute|Switch|^Get|^Set|Primitive|String|Text|Prompt|Loader|Zero|Styler", re.IGNORECASE)


def find_text(graph: Graph, link: Any, side: str, found: Found) -> tuple[str | None, bool]:
    """The text that a sampler's input leads to.

    Args:
        graph: The graph.
        link: The input.
        side: "positive" or "negative"; nodes such as ControlNetApplyAdvanced pass on both.
        found: Gets a line for each text and each node on the way that is left out.

    Returns:
        The text, None if there is none; and whether it is none because its conditioning is zeroed.
    """
    if isinstance(link, str):
        return link, False
    seen, node = set[str](), graph.at(link)
    return _search(graph, node, side, found, seen)


def _search(graph: Graph, node: Node | None, side: str, found: Found, seen: set[str]) -> tuple[str | None, bool]:
    if node is None or node.id in seen or len(seen) > _MOST:
        return None, False
    seen.add(node.id)
    if node.kind == _ZERO:  # it ignores its text
        return None, True
    is_zeroed = False
    others = [key for key, value in node.inputs.items() if isinstance(value, list) and key not in _NO_TEXT]
    for key in dict.fromkeys((f"text_{side}", *_TEXTS, *_ON, side, *others)):
        value = node.inputs.get(key)
        text = value if isinstance(value, str) else None
        if isinstance(value, list):
            text, is_zeroed = _search(graph, graph.at(value), side, found, seen)
            if is_zeroed:
                return None, True
        if text is None or (not text and key in ("text_g", "populated_text")):
            continue
        _name_others(graph, node, key, text, side, found, seen)
        return text, False
    return None, is_zeroed


def _name_others(graph: Graph, node: Node, key: str, text: str, side: str, found: Found, seen: set[str]) -> None:
    """Name what the way through a node leaves out."""
    if key == "text_g" and node.inputs.get("text_l") is not None:
        value = node.inputs["text_l"]
        other = value if isinstance(value, str) else _search(graph, graph.at(value), side, Found(""), set(seen))[0]
        if other and other != text:
            found.lacks(f'the text of the first text encoder (text_l) is left out: "{shown(other)}"')
    for second in _SECOND:
        if second in node.inputs:
            other, _ = _search(graph, graph.at(node.inputs[second]), side, Found(""), set(seen))
            found.lacks(f'a second prompt ({shown(node.kind)}) is left out: "{shown(other or "computed")}"')
    if "trigger_words" in node.inputs:
        found.lacks(f"trigger words are joined to the {side} text in the graph; only the text is read")
    if key == "string_a" and "string_b" in node.inputs:
        found.lacks(f"{side} texts are joined in the graph ({shown(node.kind)}); only the first is read")
    if (key in _ON or key == side) and not _PLAIN.search(node.kind) and not set(_SECOND) & node.inputs.keys():
        found.lacks(f"the node {shown(node.kind)} between prompt and sampler has no counterpart here")

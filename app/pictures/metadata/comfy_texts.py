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
_TEXTS = (
    "populated_text",
    "text",
    "text_g",
    "text_l",
    "clip_g",
    "clip_l",
    "prompt",
    "wildcard_text",
    "string",
    "value",
)
_ON = ("conditioning", "conditioning_1", "conditioning_to", "cond1", "any", "source", "input")
_SECOND = ("conditioning_2", "conditioning_from", "cond2")
_NO_TEXT = ("clip", "model", "vae", "control_net", "image", "mask", "samples", "latent_image", *_SECOND)
_NO_TEXT += ("positive", "negative")  # but for the side that is followed
_PLAIN = re.compile(
    r"Encode|Reroute|Switch|^Get|^Set|Primitive|String|Text|Prompt|Loader|Zero|Styler|Wildcard|Show|Multiline|"
    r"positive|negative",
    re.IGNORECASE,
)
_JOINING = re.compile(r"concat|join|combine|append|merge|StringFunction", re.IGNORECASE)
_PART = re.compile(r"(text|string|prompt)_?([a-z]|\d+)")
_NO_STYLE = ("", "none", "no style", "base", "sai-base")


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
    is_zeroed, computed = False, list[str]()
    if (joined := _joined(graph, node, side, found, seen)) is not None:
        return joined, False
    others = [key for key, value in node.inputs.items() if isinstance(value, list) and key not in _NO_TEXT]
    before = [key for key in _ON[:4] if graph.at(node.inputs.get(key))]  # a text beside these is a second one
    own = (f"text_{side}", f"text_{side}_g", f"text_{side}_l", f"{side[:3]}_g", f"{side[:3]}_l")
    texts = _TEXTS[2:] if node.inputs.get("with_SDXL") is True else _TEXTS  # smZ's encoder ignores its `text` then
    for key in dict.fromkeys((*before, *own, *texts, *_ON, side, *others)):
        value = node.inputs.get(key)
        text = value if isinstance(value, str) else None
        if isinstance(value, list):
            text, is_zeroed = _search(graph, graph.at(value), side, found, seen)
            if is_zeroed:
                return None, True
        if text is None and isinstance(value, list) and key.endswith("_g"):
            computed.append(key)
        if text is None or (not text and key.endswith(("_g", "populated_text"))):
            continue
        for other in computed:
            found.lacks(f"the text of the second text encoder ({other}) is computed in the graph; it is left out")
        _name_others(graph, node, key, text, side, found, seen)
        return text, False
    return None, is_zeroed


def _name_others(graph: Graph, node: Node, key: str, text: str, side: str, found: Found, seen: set[str]) -> None:
    """Name what the way through a node leaves out."""
    first = f"{key.removesuffix('_g')}_l"
    for which, other_key in (("first", first if key.endswith("_g") else ""), ("third", "t5xxl")):
        value = node.inputs.get(other_key)
        if value is None:
            continue
        other = value if isinstance(value, str) else _search(graph, graph.at(value), side, Found(""), set(seen))[0]
        if other is None:
            found.lacks(f"the text of the {which} text encoder ({other_key}) is computed in the graph; it is left out")
        elif other and other != text:
            found.lacks(f'the text of the {which} text encoder ({other_key}) is left out: "{shown(other)}"')
    style = node.inputs.get("style")
    if isinstance(style, str) and style.strip().casefold() not in _NO_STYLE and "style" in node.kind.lower():
        found.lacks(f"the words of the style {shown(style)} are left out")
    seconds = [name for name in node.inputs if name in _SECOND or re.fullmatch(r"conditioning_?[2-9]\d*", name)]
    for second in (*seconds, *(("text",) if key in _ON[:4] and "text" in node.inputs else ())):
        value = node.inputs[second]
        other = value if isinstance(value, str) else _search(graph, graph.at(value), side, Found(""), set(seen))[0]
        found.lacks(f'a second prompt ({shown(node.kind)}) is left out: "{shown(other or "computed")}"')
    if "trigger_words" in node.inputs:
        found.lacks(f"trigger words are joined to the {side} text in the graph; only the text is read")
    is_source = isinstance(node.inputs.get(key), str) and "clip" not in node.inputs
    if is_source and not _PLAIN.search(node.kind):
        found.lacks(f"the {side} text comes out of the node {shown(node.kind)}; what went into it is read")
    elif (key in _ON or key == side) and not _PLAIN.search(node.kind) and not seconds:
        found.lacks(f"the node {shown(node.kind)} between prompt and sampler has no counterpart here")


def _joined(graph: Graph, node: Node, side: str, found: Found, seen: set[str]) -> str | None:
    """The texts that a node joins; None for any other node."""
    keys = [key for key in node.inputs if _PART.fullmatch(key)]
    if len(keys) < 2 or "clip" in node.inputs or not _JOINING.search(node.kind):
        return None
    parts: list[str] = []
    for key in sorted(keys, key=lambda key: (len(key), key)):
        value = node.inputs[key]
        text = value if isinstance(value, str) else _search(graph, graph.at(value), side, found, seen)[0]
        if text is None:
            found.lacks(f"a part of the {side} text is computed in the graph ({shown(node.kind)}); it is left out")
        elif text.strip():
            parts.append(text)
    if node.inputs.get("action", "append") != "append":
        found.lacks(f"the node {shown(node.kind)} changes the {side} text; what went into it is read")
    delimiter = next(
        (graph.constant(node.inputs[key], key) for key in ("delimiter", "separator") if key in node.inputs), None
    )
    if not isinstance(delimiter, str):
        delimiter = ", " if node.inputs.get("tidy_tags") == "yes" else ""
    return delimiter.replace("\\n", "\n").join(parts)

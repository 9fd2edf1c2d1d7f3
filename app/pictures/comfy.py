"""The settings in a ComfyUI picture: its `prompt` chunk is the graph of nodes that drew it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lorablend.adapters.errors import RequestError

__all__ = ["read_comfy"]

_SAMPLERS = {
    "euler": "euler",
    "euler_ancestral": "euler_a",
    "dpmpp_2m": "dpmpp_2m",
    "dpmpp_2m_sde": "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu": "dpmpp_2m_sde",
    "uni_pc": "unipc",
    "ddim": "ddim",
    "lcm": "lcm",
}
_SPACINGS = {
    "normal": "linspace",
    "karras": "karras",
    "exponential": "exponential",
    "sgm_uniform": "trailing",
    "ddim_uniform": "leading",
}
_HOLDING = ("value", "seed", "int", "float", "string")  # inputs of nodes that hold one value
_ZERO = "ConditioningZeroOut"
_DEEPEST = 200  # nodes from the sampler to where a text or a model is; a graph may be a circle


def read_comfy(text: str) -> tuple[dict[str, Any], list[str]]:
    """(fields of a `Draw` with adapters by their names there, what has no counterpart here).

    Of several samplers the first one that has both prompts counts. Raises RequestError if there is none.
    """
    try:
        graph = json.loads(text)
        nodes = {str(key): node for key, node in graph.items() if isinstance(node.get("inputs"), dict)}
    except (ValueError, AttributeError, RecursionError):
        raise RequestError("the picture's ComfyUI graph cannot be read; drop another picture") from None
    sampler = next((node for node in nodes.values() if {"positive", "negative"} <= node["inputs"].keys()), None)
    sampler = next((node for node in nodes.values() if "KSampler" in str(node.get("class_type"))), sampler)
    if sampler is None:
        raise RequestError("the picture's ComfyUI graph has no sampler with a prompt; drop another picture")
    inputs, missing = sampler["inputs"], list[str]()

    def said(own: Mapping[str, Any], key: str, what: str, kind: Any) -> Any:
        """The value of a node's input, where it is of that kind."""
        value = _constant(nodes, own.get(key), key)
        if isinstance(value, list):
            missing.append(f"{what} is computed in the graph")
        return value if isinstance(value, kind) and not isinstance(value, bool) else None

    prompt, negative = (_text(nodes, inputs.get(key), key) for key in ("positive", "negative"))
    missing += ["the prompt is computed in the graph"] if prompt is None else []
    is_lost = negative is None and "negative" in inputs and not _is_zeroed(nodes, inputs["negative"])
    missing += ["the negative prompt is computed in the graph"] if is_lost else []
    fields: dict[str, Any] = {
        "prompt": prompt or "",
        "negative_prompt": negative,
        "seed": said(inputs, "seed" if "seed" in inputs else "noise_seed", "the seed", int),
        "steps": said(inputs, "steps", "the number of steps", int),
        "guidance_scale": said(inputs, "cfg", "the guidance", int | float),
    }
    for key, names, what in (("sampler_name", _SAMPLERS, "sampler"), ("scheduler", _SPACINGS, "spacing")):
        name = said(inputs, key, f"the {what}", str)
        if name in names:
            fields["scheduler" if what == "sampler" else "spacing"] = names[name]
        elif name:
            missing.append(f"the {what} {name} is not here; the model's own is taken")
    items: list[dict[str, Any]] = []
    for node in _upwards(nodes, inputs.get("model"), "model"):
        own, kind = node["inputs"], str(node.get("class_type"))
        if "lora_name" in own:
            if name := said(own, "lora_name", "the name of an adapter", str):
                unet = said(own, "strength_model", f"the weight of {_stem(name)}", int | float)
                text_encoder = said(own, "strength_clip", f"the text encoder weight of {_stem(name)}", int | float)
                items.insert(0, {"adapter": _stem(name), "weight": unet, "text_encoder": text_encoder})
        elif "ckpt_name" in own:
            name = said(own, "ckpt_name", "the name of the model", str)
            fields["model"] = _stem(name) if name else None
        elif own.get("model") is not None:
            missing.append(f"the node {kind} between model and sampler has no counterpart here")
    fields["blend"] = [{key: value for key, value in item.items() if value is not None} for item in items]
    latent = _node(nodes, inputs.get("latent_image"))
    if latent and {"width", "height"} <= latent["inputs"].keys():
        fields |= {key: said(latent["inputs"], key, f"the {key}", int) for key in ("width", "height")}
    elif latent:
        missing.append("the picture that it started from is not in the file")
    return {key: value for key, value in fields.items() if value is not None}, missing


def _node(nodes: Mapping[str, Any], link: Any) -> dict[str, Any] | None:
    return nodes.get(str(link[0])) if isinstance(link, list) and link else None


def _upwards(nodes: Mapping[str, Any], link: Any, name: str) -> list[dict[str, Any]]:
    """The nodes from a link on, along their inputs of that name."""
    found: list[dict[str, Any]] = []
    while (node := _node(nodes, link)) is not None and len(found) < _DEEPEST:
        found.append(node)
        link = node["inputs"].get(name)
    return found


def _constant(nodes: Mapping[str, Any], value: Any, key: str) -> Any:
    """What a link to a node that holds one value leads to, through nodes that hand it on; else the link."""
    found = value
    for _ in range(_DEEPEST):
        if (node := _node(nodes, found)) is None:
            break
        found = next((node["inputs"][name] for name in (key, *_HOLDING) if name in node["inputs"]), None)
    return value if found is None or isinstance(found, list) else found


def _text(nodes: Mapping[str, Any], link: Any, side: str, seen: set[str] | None = None) -> str | None:
    """The text that a link leads to, through nodes that hand it on; None where there is none.

    side: positive or negative; nodes such as ControlNetApplyAdvanced hand on both. seen: nodes, each looked at once.
    """
    node, seen = _node(nodes, link), set() if seen is None else seen
    if node is None:
        return link if isinstance(link, str) else None
    # Of what goes into zeros, the text counts no more.
    if node.get("class_type") == _ZERO or str(link[0]) in seen or len(seen) > _DEEPEST:
        return None
    seen.add(str(link[0]))
    for key in ("text", "text_g", "string", "value", "conditioning", side):
        value = node["inputs"].get(key)
        if isinstance(value, str):
            return value
        if isinstance(value, list) and (text := _text(nodes, value, side, seen)) is not None:
            return text
    return None


def _is_zeroed(nodes: Mapping[str, Any], link: Any) -> bool:
    """Does the negative prompt come from embeddings of zeros, as without a negative prompt here?"""
    for _ in range(_DEEPEST):
        node = _node(nodes, link)
        if node is None or node.get("class_type") == _ZERO:
            return node is not None
        link = node["inputs"].get("conditioning", node["inputs"].get("negative"))
    return False


def _stem(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2].rpartition(".")[0] or name

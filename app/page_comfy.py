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
    fields: dict[str, Any] = {
        "prompt": _text(nodes, inputs.get("positive")),
        "negative_prompt": _text(nodes, inputs.get("negative")) or None,
        "seed": _whole(inputs.get("seed", inputs.get("noise_seed"))),
        "steps": _whole(inputs.get("steps")),
    }
    if isinstance(inputs.get("cfg"), int | float):
        fields["guidance_scale"] = inputs["cfg"]
    for key, names, what in (("sampler_name", _SAMPLERS, "sampler"), ("scheduler", _SPACINGS, "spacing")):
        name = inputs.get(key)
        if isinstance(name, str) and name in names:
            fields["scheduler" if what == "sampler" else "spacing"] = names[name]
        elif isinstance(name, str):
            missing.append(f"the {what} {name} is not here; the model's own is taken")
    items: list[dict[str, Any]] = []
    for node in _upwards(nodes, inputs.get("model"), "model"):
        own, kind = node["inputs"], str(node.get("class_type"))
        if isinstance(own.get("lora_name"), str):
            unet, text_encoder = own.get("strength_model", 1.0), own.get("strength_clip")
            items.insert(0, {"adapter": _stem(own["lora_name"]), "weight": unet, "text_encoder": text_encoder})
        elif isinstance(own.get("ckpt_name"), str):
            fields["model"] = _stem(own["ckpt_name"])
        elif own.get("model") is not None:
            missing.append(f"the node {kind} between model and sampler has no counterpart here")
    fields["blend"] = [{key: value for key, value in item.items() if value is not None} for item in items]
    latent = _node(nodes, inputs.get("latent_image"))
    if latent and {"width", "height"} <= latent["inputs"].keys():
        fields |= {"width": _whole(latent["inputs"]["width"]), "height": _whole(latent["inputs"]["height"])}
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


def _text(nodes: Mapping[str, Any], link: Any, depth: int = 0) -> str:
    """The text that a link leads to, through nodes that hand it on."""
    node = _node(nodes, link)
    if node is None or depth > _DEEPEST:
        return link if isinstance(link, str) else ""
    for key in ("text", "text_g", "string", "value", "conditioning", "positive"):
        value = node["inputs"].get(key)
        if isinstance(value, str):
            return value
        if isinstance(value, list) and (text := _text(nodes, value, depth + 1)):
            return text
    return ""


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _stem(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2].rpartition(".")[0] or name

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
_HOLDING = ("value", "seed", "int", "float", "string")  # inputs of nodes that hold a single value
_ZERO = "ConditioningZeroOut"
_DEEPEST = 200  # nodes between the sampler and a text or a model; a graph may have cycles


def read_comfy(text: str) -> tuple[dict[str, Any], list[str]]:
    """Read the first sampler of a graph that has both prompts.

    Args:
        text: The graph as JSON.

    Returns:
        Fields of a `Draw`, with adapters by their names in the graph, and one line for each part that has no
        counterpart here.

    Raises:
        RequestError: the graph cannot be read, or has no sampler.
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

    def read(own: Mapping[str, Any], key: str, what: str, kind: Any) -> Any:
        """The value of a node's input, if it has that type."""
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
        "seed": read(inputs, "seed" if "seed" in inputs else "noise_seed", "the seed", int),
        "steps": read(inputs, "steps", "the number of steps", int),
        "guidance_scale": read(inputs, "cfg", "the guidance", int | float),
    }
    for key, names, what in (("sampler_name", _SAMPLERS, "sampler"), ("scheduler", _SPACINGS, "spacing")):
        name = read(inputs, key, f"the {what}", str)
        if name in names:
            fields["scheduler" if what == "sampler" else "spacing"] = names[name]
        elif name:
            missing.append(f"the {what} {name} is not here; the model's own is used")
    items: list[dict[str, Any]] = []
    for node in _upwards(nodes, inputs.get("model"), "model"):
        own, kind = node["inputs"], str(node.get("class_type"))
        if "lora_name" in own:
            if name := read(own, "lora_name", "the name of an adapter", str):
                unet = read(own, "strength_model", f"the weight of {_stem(name)}", int | float)
                text_encoder = read(own, "strength_clip", f"the text encoder weight of {_stem(name)}", int | float)
                items.insert(0, {"adapter": _stem(name), "weight": unet, "text_encoder": text_encoder})
        elif "ckpt_name" in own:
            name = read(own, "ckpt_name", "the name of the model", str)
            fields["model"] = _stem(name) if name else None
        elif own.get("model") is not None:
            missing.append(f"the node {kind} between model and sampler has no counterpart here")
    fields["blend"] = [{key: value for key, value in item.items() if value is not None} for item in items]
    latent = _node(nodes, inputs.get("latent_image"))
    if latent and {"width", "height"} <= latent["inputs"].keys():
        fields |= {key: read(latent["inputs"], key, f"the {key}", int) for key in ("width", "height")}
    elif latent:
        missing.append("the picture that it started from is not in the file")
    return {key: value for key, value in fields.items() if value is not None}, missing


def _node(nodes: Mapping[str, Any], link: Any) -> dict[str, Any] | None:
    return nodes.get(str(link[0])) if isinstance(link, list) and link else None


def _upwards(nodes: Mapping[str, Any], link: Any, name: str) -> list[dict[str, Any]]:
    """The nodes from a link on, along their inputs of that name."""
    path: list[dict[str, Any]] = []
    while (node := _node(nodes, link)) is not None and len(path) < _DEEPEST:
        path.append(node)
        link = node["inputs"].get(name)
    return path


def _constant(nodes: Mapping[str, Any], value: Any, key: str) -> Any:
    """The single value that a link leads to, through nodes that pass it on; otherwise the link itself."""
    end = value
    for _ in range(_DEEPEST):
        if (node := _node(nodes, end)) is None:
            break
        end = next((node["inputs"][name] for name in (key, *_HOLDING) if name in node["inputs"]), None)
    return value if end is None or isinstance(end, list) else end


def _text(nodes: Mapping[str, Any], link: Any, side: str, seen: set[str] | None = None) -> str | None:
    """The text that a link leads to, through nodes that pass it on; None if there is none.

    Args:
        nodes: The graph.
        link: Where to begin.
        side: "positive" or "negative"; nodes such as ControlNetApplyAdvanced pass on both.
        seen: The nodes on the way so far, none of which is visited again.
    """
    node, seen = _node(nodes, link), set() if seen is None else seen
    if node is None:
        return link if isinstance(link, str) else None
    # Zeroed conditioning ignores its text.
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
    """Whether the negative prompt is embeddings of zeros, which is the same as no negative prompt here."""
    for _ in range(_DEEPEST):
        node = _node(nodes, link)
        if node is None or node.get("class_type") == _ZERO:
            return node is not None
        link = node["inputs"].get("conditioning", node["inputs"].get("negative"))
    return False


def _stem(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2].rpartition(".")[0] or name

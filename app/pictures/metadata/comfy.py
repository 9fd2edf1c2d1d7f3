"""The settings in a ComfyUI picture: its `prompt` text is the graph of nodes that drew it.

The graph is followed backwards from the node that saves the picture: to the sampler that made its latent, and where
that began with another sampler's, to the first one. Its settings are read, through guiders, sigmas, noise and pipes;
what later passes do is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lorablend.adapters.errors import RequestError
from lorablend.adapters.wording import shown
from lorablend.app.pictures.metadata.comfy_changes import (
    name_batch,
    name_clip,
    name_helper,
    name_sampler,
    name_sizes,
    name_vae,
)
from lorablend.app.pictures.metadata.comfy_loaders import adapters_in, is_loader, unread, without_clip
from lorablend.app.pictures.metadata.comfy_texts import find_text
from lorablend.app.pictures.metadata.found import START_LOST, Found, Mention, stem
from lorablend.app.pictures.metadata.graph import Graph, Node
from lorablend.app.pictures.metadata.mentions import from_tags, unite
from lorablend.engine.prompt.weights import is_same_in_all_rules

__all__ = ["read_graph"]

# Inputs that lead to no picture and no latent.
_ASIDE = frozenset(
    {"model", "clip", "vae", "positive", "negative", "conditioning", "control_net", "mask", "text", "guider", "sigmas"}
    | {"noise", "sampler", "clip_vision", "seed", "upscale_model", "lora_stack", "pipe", "basic_pipe"}
)
_HELPERS = re.compile(r"guider|sigmas|noise|sampler|pipe|settings|params|context|ctx|sdxl_tuple", re.IGNORECASE)
_PASSING = re.compile(
    r"VAE ?(De|En)code|Reroute|Save|Preview|Switch|^Get|^Set|Primitive|Output|Image ?Batch", re.IGNORECASE
)
_MODEL_FILES = ("ckpt_name", "base_ckpt_name", "unet_name", "checkpoint", "model_name")
_MOST = 200  # outputs or samplers that are looked at, in a graph by anybody
_SCHEDULES = {"KarrasScheduler": "karras", "ExponentialScheduler": "exponential"}


def read_graph(form: Mapping[str, Any], text: str, size: tuple[int, int] | None = None) -> Found:
    """Read a graph.

    Args:
        form: The graph as its JSON says it.
        text: That JSON.
        size: Of the picture, for graphs that compute it.

    Raises:
        RequestError: the graph has no sampler.
    """
    graph, found = Graph(form), Found("ComfyUI", text=text)
    passes, behind = _passes(graph)
    sampler = passes[-1]
    for later in passes[:-1]:
        inputs = _with_helpers(graph, later)
        numbers = {key: inputs[key] for key in ("steps", "denoise") if isinstance(inputs.get(key), int | float)}
        said = ", ".join([later.kind, *(f"{key} {value}" for key, value in numbers.items())])
        found.lacks(f"a later pass ({shown(said)}) is not done here")
    for node in behind:
        found.lacks(f"the node {shown(node.kind)} behind the sampler has no counterpart here")
    inputs = _with_helpers(graph, sampler, found)

    def constant(key: str, what: str, kind: Any, own: Mapping[str, Any] = inputs) -> Any:
        value = graph.constant(own.get(key), key)
        if isinstance(value, list):
            found.lacks(f"{what} is computed in the graph")
        return value if isinstance(value, kind) and not isinstance(value, bool) else None

    _read_prompts(graph, inputs, found)
    for name, keys, what, kind in (
        ("seed", ("seed", "noise_seed"), "the seed", int),
        ("steps", ("steps",), "the number of steps", int),
        ("guidance_scale", ("cfg", "cfg_scale", "cfg_conds", "guidance_scale"), "the guidance", int | float),
    ):
        key = next((key for key in keys if key in inputs), keys[0])
        found.take(name, constant(key, what, kind), key)
    found.take_sampler(
        constant("sampler_name", "the sampler", str) or constant("sampler", "the sampler", str),
        constant("scheduler", "the spacing", str),
    )
    _read_adapters(graph, passes[0], inputs, found)
    texts = (found.settings.get(name) or "" for name in ("prompt", "negative_prompt"))
    if not all(map(is_same_in_all_rules, texts)):
        found.take("prompt_rule", "comfy")
    latent = graph.at(next((inputs[key] for key in ("latent_image", "latent", "samples") if key in inputs), None))
    _read_size(graph, latent, inputs, found, size if len(passes) == 1 and not behind else None)
    name_sampler(graph, sampler, found)
    name_vae(graph, found)
    name_batch(graph, latent, found)
    if encoder := _encoder(graph, inputs):
        name_clip(graph, encoder, found)
        name_sizes(graph, encoder, found)
    denoise = graph.constant(inputs.get("denoise"), "denoise")
    is_part = isinstance(denoise, int | float) and denoise < 1
    if is_part and START_LOST not in found.missing:
        found.lacks(f"denoise ({denoise}) is not done here without a picture to start from")
    return found


def _is_sampler(node: Node) -> bool:
    keys = node.inputs.keys()
    if "sampler" in node.kind.lower():
        return bool({"latent_image", "latent", "guider", "positive", "pipe", "basic_pipe", "samples"} & keys)
    return {"positive", "negative"} <= keys and bool({"steps", "seed", "noise_seed", "cfg"} & keys)


def _passes(graph: Graph) -> tuple[list[Node], list[Node]]:
    """The samplers of the saved picture, the last one first; and the nodes that change the picture behind the first."""
    samplers = [node for node in graph.nodes.values() if _is_sampler(node)]
    if not samplers:
        raise RequestError("the picture's ComfyUI graph has no sampler with a prompt; give another picture")
    used = {str(link[0]) for node in graph.nodes.values() for link in node.inputs.values() if graph.at(link)}
    ends = [node for node in graph.nodes.values() if node.id not in used and not _is_sampler(node)]
    ends.sort(key=lambda node: not re.search("save", node.kind, re.IGNORECASE))  # those that only show come later
    passes: list[Node] = []
    behind: list[Node] = []
    for end in ends[:_MOST]:
        last, between = graph.nearest(end, _ASIDE, _is_sampler)
        if last is not None:
            passes.append(last)
            behind += between
            break
    if not passes:
        fed = {before.id for node in samplers[:_MOST] for before in graph.upstream(node, _ASIDE)}
        passes.append(next((node for node in samplers if node.id not in fed), samplers[0]))
    while len(passes) < _MOST:
        first, between = graph.nearest(passes[-1], _ASIDE, _is_sampler)
        if first is None or first in passes:
            break
        passes.append(first)
        behind += between
    return passes, [node for node in behind if not _PASSING.search(node.kind)]


def _with_helpers(graph: Graph, sampler: Node, found: Found | None = None) -> dict[str, Any]:
    """A sampler's inputs, with those of the nodes that hold some of them: guider, sigmas, noise, sampler, pipes."""
    inputs, queue = dict(sampler.inputs), [sampler]
    for node in queue[:]:
        queue += [helper for key, link in node.inputs.items() if _HELPERS.search(key) and (helper := graph.at(link))]
    place = 1
    while place < len(queue) and place < 20:
        node, place = queue[place], place + 1
        own = dict(node.inputs)
        if "guider" in node.kind.lower():
            others = [key for key in ("cond2", "empty_conditioning") if key in own]
            own |= {"positive": own.get("positive", own.get("conditioning", own.get("cond1")))}
            own.setdefault("cfg", own.get("cfg_conds", 1))
            if others and found:
                found.lacks(f"the node {shown(node.kind)} has no counterpart here; its second prompt is left out")
        if found:
            name_helper(graph, node, found)
        if node.kind in _SCHEDULES:
            own["scheduler"] = _SCHEDULES[node.kind]
        elif "sigmas" in own and found:
            found.lacks(f"the node {shown(node.kind)} has no counterpart here")
        elif re.search("scheduler|sigmas", node.kind, re.IGNORECASE) and "scheduler" not in own:
            own["scheduler"] = node.kind
        if re.match(r"Sampler[A-Z]", node.kind) and not _is_sampler(node) and "sampler_name" not in own:
            own["sampler_name"] = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.kind.removeprefix("Sampler")).lower()
        for key, value in own.items():
            if key not in inputs or (_HELPERS.search(key) and graph.at(inputs[key])):
                inputs[key] = value
        for key, link in node.inputs.items():
            helper = graph.at(link) if _HELPERS.search(key) else None
            if helper is not None and helper not in queue:
                queue.append(helper)
    return inputs


def _read_prompts(graph: Graph, inputs: Mapping[str, Any], found: Found) -> None:
    for side, name in (("positive", "prompt"), ("negative", "negative_prompt")):
        words = "the prompt" if side == "positive" else "the negative prompt"
        text, is_zeroed = find_text(graph, inputs.get(side), side, found)
        if text is None:
            if side == "positive" or (side in inputs and not is_zeroed):
                found.lacks(f"{words} is computed in the graph")
            found.settings |= {"prompt": ""} if side == "positive" else {}
            continue
        found.take(name, text)


def _read_adapters(graph: Graph, last: Node, inputs: Mapping[str, Any], found: Found) -> None:
    """The adapters on the model's way; those elsewhere before the picture are named."""
    on_way: list[Mention] = []
    used = set[str]()
    clips = _clip_way(graph, inputs)
    for node in graph.way(_model_link(inputs), lambda node: _model_link(node.inputs)):
        mentions = list[Mention]()
        for stack in [node, *_stacks(graph, node)]:
            if stack.id not in used:
                used.add(stack.id)
                mentions += adapters_in(graph, stack, found)
                for line in unread(graph, stack):
                    found.lacks(line)
        has_clip = "clip" in node.inputs or any(_HELPERS.search(key) for key in node.inputs)
        if "model" in node.inputs and (not has_clip or (clips and node.id not in clips)):
            mentions = [without_clip(mention) for mention in mentions]
        on_way = [*mentions, *on_way]
        file = next((node.inputs[key] for key in _MODEL_FILES if isinstance(node.inputs.get(key), str)), None)
        if file:
            found.settings["model"] = stem(file)
        elif not mentions and not is_loader(node) and _changes_the_model(node):
            found.lacks(f"the node {shown(node.kind)} between model and sampler has no counterpart here")
    for mention in on_way:
        if mention.weight is None:
            found.lacks(f"the weight of {shown(mention.name)} is computed in the graph")
    elsewhere = [
        mention
        for node in graph.upstream(last)
        if node.id not in used
        for mention in (adapters_in(graph, node, Found("")) if "lora" in node.kind.lower() else ())
    ]
    known = {mention.name for mention in on_way}
    prompt, tags, _ = from_tags(Found(""), found.settings.get("prompt", ""))
    found.settings["prompt"] = prompt
    for mention in unite(elsewhere, tags):
        if mention.name not in known:
            name = shown(mention.name)
            found.lacks(f"the adapter {name} is in the graph, but not on the model's way; it is left out")
    found.take_adapters([mention for mention in on_way if mention.weight is not None])


def _changes_the_model(node: Node) -> bool:
    """Whether a node on the model's way does more than pass it on."""
    links = [key for key, value in node.inputs.items() if isinstance(value, list) and "model" in key.lower()]
    return bool(links) and not re.search("Reroute|Pipe|Switch|Any", node.kind, re.IGNORECASE)


def _model_link(inputs: Mapping[str, Any]) -> Any:
    keys = [key for key in inputs if isinstance(inputs[key], list)]
    named = [key for key in keys if key.lower() == "model"] + [key for key in keys if "model" in key.lower()]
    others = [key for key in keys if re.search(r"pipe|unet|tuple|any|^value$|^input", key, re.IGNORECASE)]
    return inputs[[*named, *others][0]] if named or others else None


def _encoder(graph: Graph, inputs: Mapping[str, Any]) -> Node | None:
    """The node that encodes the positive prompt."""
    follow = ("conditioning", "conditioning_1", "conditioning_to", "positive")

    def before(node: Node) -> Any:
        return next((node.inputs[key] for key in follow if key in node.inputs), None)

    return next((node for node in graph.way(inputs.get("positive"), before) if "clip" in node.inputs), None)


def _clip_way(graph: Graph, inputs: Mapping[str, Any]) -> set[str]:
    """The nodes on the way of the positive prompt's text encoder; none if it cannot be followed to its end."""
    encoder = _encoder(graph, inputs)
    if encoder is None:
        return set()
    way = graph.way(encoder.inputs["clip"], lambda node: node.inputs.get("clip"))
    is_whole = bool(way) and re.search(r"checkpoint|clip ?loader|loader", way[-1].kind, re.IGNORECASE)
    return {node.id for node in [encoder, *way]} if is_whole else set()


def _stacks(graph: Graph, node: Node) -> list[Node]:
    """The nodes of the stacks of adapters that a node applies, in the order in which they are applied."""
    stacks: list[Node] = []
    queue = [node]
    for place in range(200):
        if place >= len(queue):
            break
        for key, link in queue[place].inputs.items():
            leads_on = re.search(r"lora|stack", key, re.IGNORECASE) and "name" not in key
            before = graph.at(link) if leads_on else None
            if before is not None and before not in queue:
                queue.append(before)
                stacks.insert(0, before)
    return stacks


def _read_size(
    graph: Graph, latent: Node | None, inputs: Mapping[str, Any], found: Found, size: tuple[int, int] | None
) -> None:
    keys = next(
        (
            (node, keys)
            for node in (latent, *([] if latent is None else list(graph.upstream(latent, _ASIDE))))
            if node is not None
            for keys in (("width", "height"), ("empty_latent_width", "empty_latent_height"))
            if set(keys) <= node.inputs.keys() and "load" not in node.kind.lower().removeprefix("efficient load")
        ),
        None,
    )
    is_picture = latent is not None and any(
        re.search(r"load ?image|VAE ?Encode|NoiseMask|Inpaint", node.kind, re.IGNORECASE)
        for node in (latent, *graph.upstream(latent, _ASIDE))
    )
    if is_picture:
        found.lacks(START_LOST)
    if keys is not None and not is_picture:
        node, (width, height) = keys
        sides = [graph.constant(node.inputs[key], key.rpartition("_")[2]) for key in (width, height)]
        for name, side in zip(("width", "height"), sides, strict=True):
            if isinstance(side, list):
                if size is None:
                    found.lacks(f"the {name} is computed in the graph")
                else:
                    found.take(name, size[name == "height"])
            else:
                found.take(name, side)
    elif size is not None:
        found.take_size(*size)
    elif latent is None and "pipe" not in inputs:
        found.lacks("the size is computed in the graph")

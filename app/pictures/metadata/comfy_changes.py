"""What a ComfyUI graph does to the picture beside its settings, and is not done here: each is named."""

from __future__ import annotations

import re

from lorablend.adapters.wording import shown
from lorablend.app.pictures.metadata.found import Found, is_nothing, number, stem
from lorablend.app.pictures.metadata.graph import Graph, Node

__all__ = ["name_batch", "name_clip", "name_helper", "name_sampler", "name_sizes", "name_vae"]

_OF_SAMPLERS = re.compile(
    r"(variation|sub_?seed|refiner).*|eta|s_(noise|churn|tmin|tmax)|(start|end)_(at_)?step|last_step|add_noise|.*rescale.*"
)
_STRENGTH = re.compile(r"(variation|sub_?seed)_(strength|weight)")
_OWN_VAE = ("baked vae", "baked-vae", "bakedvae")
_SIZES = ("width", "height", "crop_w", "crop_h", "target_width", "target_height")


def name_sampler(graph: Graph, sampler: Node, found: Found) -> None:
    """Variations, parts of the steps, and other inputs of the sampler that change the picture."""
    values = {key: graph.constant(value, key) for key, value in sampler.inputs.items()}
    has_variation = any(_STRENGTH.fullmatch(key) and number(value) != 0 for key, value in values.items())
    steps = number(values.get("steps"))
    for key, value in values.items():
        if not _OF_SAMPLERS.fullmatch(key) or isinstance(value, list):
            continue
        is_off = is_nothing(value) or number(value) == 0
        if key == "add_noise":
            is_off = value not in (False, "disable")
        elif key in ("end_at_step", "end_step", "last_step"):
            is_off = steps is None or (number(value) or 0) >= steps or (number(value) or 0) < 0
        elif key.startswith(("variation", "sub")):
            is_off = not has_variation
        elif key in ("eta", "s_noise"):
            is_off = number(value) == 1
        if not is_off:
            found.ignores(key, value)


def name_helper(graph: Graph, node: Node, found: Found) -> None:
    """What the nodes for a sampler's method and for its levels have beside a name."""
    for key, plain in (("eta", 1), ("s_noise", 1), ("rho", 7)):
        value = graph.constant(node.inputs.get(key), key)
        if re.match(r"Sampler|.*Scheduler", node.kind) and number(value) not in (None, plain):
            found.ignores(f"{node.kind}'s {key}", value)


def name_vae(graph: Graph, found: Found) -> None:
    """A VAE of its own."""
    for node in graph.nodes.values():
        source = graph.at(node.inputs.get("vae")) if re.search(r"VAE ?Decode", node.kind, re.IGNORECASE) else None
        name = graph.constant(source.inputs.get("vae_name"), "vae_name") if source else None
        if isinstance(name, str) and not is_nothing(name) and name.casefold() not in _OWN_VAE:
            found.lacks(f"the VAE {shown(stem(name))} is not used; the model's own is")


def name_clip(graph: Graph, encoder: Node, found: Found) -> None:
    """Layers that are left out, and text encoders of their own."""
    for node in graph.way(encoder.inputs["clip"], lambda node: node.inputs.get("clip")):
        for key in ("stop_at_clip_layer", "clip_skip"):
            layer = number(graph.constant(node.inputs.get(key), key))
            if layer not in (None, 0, 1, -1):
                found.ignores(key, int(layer or 0))
        for key, value in node.inputs.items():
            if re.fullmatch(r"clip_name\d?", key) and isinstance(value, str) and not is_nothing(value):
                found.lacks(f"the text encoder {shown(stem(value))} is not used; the model's own is")


def name_sizes(graph: Graph, encoder: Node, found: Found) -> None:
    """The sizes that the prompt's node tells SDXL, where they differ from the picture's."""
    sizes = [number(graph.constant(encoder.inputs.get(key), key)) for key in _SIZES]
    width, height = found.settings.get("width"), found.settings.get("height")
    own = [width, height, 0, 0, width, height]
    if any(size is not None and mine is not None and size != mine for size, mine in zip(sizes, own, strict=True)):
        told = ", ".join(f"{key} {size:g}" for key, size in zip(_SIZES, sizes, strict=True) if size is not None)
        found.lacks(f"the sizes in the node {shown(encoder.kind)} ({told}) are not used; the picture's are")


def name_batch(graph: Graph, latent: Node | None, found: Found) -> None:
    """A batch, whose pictures share one seed."""
    for node in () if latent is None else (latent, *graph.upstream(latent)):
        sizes = [number(graph.constant(node.inputs.get(key), key)) for key in ("batch_size", "amount", "batch_index")]
        if any(size is not None and size > least for size, least in zip(sizes, (1, 1, 0), strict=True)):
            found.lacks("the picture may be a later one of a batch, all of one seed; the first is drawn")
            return

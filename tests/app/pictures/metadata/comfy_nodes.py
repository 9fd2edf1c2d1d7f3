"""Nodes of ComfyUI graphs, and what is read from graphs with them."""

from __future__ import annotations

from typing import Any

from lorablend.app.pictures.metadata.comfy import read_graph
from lorablend.app.pictures.metadata.found import Found
from tests.app.pictures.metadata.written import comfy_graph

INK = {"adapter": "ink", "weight": 0.8}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def read(size: tuple[int, int] | None = None, **nodes: Any) -> Found:
    return read_graph(comfy_graph(**nodes), "", size)


def sampler(**changes: Any) -> dict[str, Any]:
    graph = comfy_graph()
    return {"class_type": "KSampler", "inputs": graph["6"]["inputs"] | changes}


def items(found: Found) -> list[dict[str, Any]]:
    return found.settings.get("blend", {}).get("items", [])

"""A ComfyUI graph as pictures hold it: nodes by number, whose inputs are values or links to other nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Graph", "Node", "is_graph"]

_HOLDING = ("value", "seed", "int", "float", "string", "number", "Number", "noise_seed")  # of nodes for one value
_DEEPEST = 200  # nodes on a way; a graph may have circles


@dataclass(frozen=True, eq=False)
class Node:
    """One node. kind: its class."""

    id: str
    kind: str
    inputs: Mapping[str, Any]


def is_graph(value: object) -> bool:
    """Whether a value from JSON is a graph."""
    nodes = list(value.values()) if isinstance(value, dict) else []
    return any(isinstance(node, dict) and "class_type" in node and "inputs" in node for node in nodes)


def _plain(value: Any) -> Any:
    """A value, out of the object in which pysssss's nodes have it beside a preview."""
    return value["content"] if isinstance(value, dict) and isinstance(value.get("content"), str) else value


class Graph:
    """The nodes of a graph; those that are none are left out. form: the graph as its JSON says it."""

    def __init__(self, form: Mapping[str, Any]) -> None:
        self.nodes = {
            str(key): Node(str(key), str(node.get("class_type")), {k: _plain(v) for k, v in node["inputs"].items()})
            for key, node in form.items()
            if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
        }

    def at(self, link: Any) -> Node | None:
        """The node that a link leads to; None for a value."""
        is_link = isinstance(link, list) and link and isinstance(link[0], str | int)
        return self.nodes.get(str(link[0])) if is_link else None

    def constant(self, value: Any, key: str) -> Any:
        """The single value that a link leads to, through nodes that pass it on; otherwise the link itself."""
        end = value
        for _ in range(_DEEPEST):
            if (node := self.at(end)) is None:
                break
            end = next((node.inputs[name] for name in (key, *_HOLDING) if name in node.inputs), None)
        return value if end is None or isinstance(end, list) else end

    def way(self, link: Any, follow: Callable[[Node], Any]) -> list[Node]:
        """The nodes from a link on, where `follow` gives the next link."""
        nodes: list[Node] = []
        while (node := self.at(link)) is not None and node not in nodes and len(nodes) < _DEEPEST:
            nodes.append(node)
            link = follow(node)
        return nodes

    def upstream(self, start: Node, skip: frozenset[str] = frozenset()) -> Iterator[Node]:
        """The nodes before one, the nearest first, each once. skip: inputs that are not followed."""
        return (node for node, _ in self._upstream(start, skip))

    def nearest(
        self, start: Node, skip: frozenset[str], is_wanted: Callable[[Node], bool]
    ) -> tuple[Node | None, list[Node]]:
        """The nearest such node before one, None if there is none; and the nodes between the two."""
        for node, after in self._upstream(start, skip):
            if is_wanted(node):
                between, place = [], after[node.id]
                while place is not start:
                    between.append(place)
                    place = after[place.id]
                return node, between
        return None, []

    def _upstream(self, start: Node, skip: frozenset[str]) -> Iterator[tuple[Node, dict[str, Node]]]:
        """Each node, and the nodes that those so far were found from."""
        after, queue = {start.id: start}, [start]
        for node in queue:
            for key, link in node.inputs.items():
                before = None if key in skip else self.at(link)
                if before is not None and before.id not in after:
                    after[before.id] = node
                    queue.append(before)
                    yield before, after

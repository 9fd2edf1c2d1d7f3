"""A description of an adapter as plain data, for a web page, a command line or JSON."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from lorablend.adapters.adapter import Adapter
from lorablend.adapters.algorithms.delta import Delta
from lorablend.adapters.files.metadata import title

__all__ = ["inspect_adapter"]


def inspect_adapter(adapter: Adapter) -> dict[str, Any]:
    """Describe an adapter in numbers, text, lists and dicts, ready for `json.dumps`.

    The whole file is read once for the hashes.

    Args:
        adapter: The adapter.

    Returns:
        A dict with these keys:

        - `name`, `file`, `size` (in bytes), `title` (or None), `base_model`, `trigger_words`, `warnings`.
        - `algorithms`: the number of modules by algorithm.
        - `components`: for each component whose weights change, the `modules` (their paths) and the distinct `ranks`
          (None for an algorithm without ranks), `alphas` (None if the file gives none), `scales` and `dtypes`, sorted.
        - `biases`: the number of changed biases by component.
        - `embeddings`: for each bundled token, the number of vectors by component.
        - `tensor_count`, which is the sum of `covered` and the lengths of `ignored` and `refused`.
        - `hashes`: `sha256`, `autov2` and `autov3`, in hex.
    """
    components: dict[str, dict[str, Delta]] = {}
    for (component, path), delta in adapter.deltas.items():
        components.setdefault(component, {})[path] = delta
    return {
        "name": adapter.name,
        "file": adapter.path.name,
        "size": adapter.size,
        "title": title(adapter.metadata),
        "base_model": adapter.base_model,
        "algorithms": dict(Counter(delta.algorithm for delta in adapter.deltas.values())),
        "components": {component: _component(deltas) for component, deltas in components.items()},
        "biases": dict(Counter(component for component, _ in adapter.biases)),
        "embeddings": {
            token: {component: len(vectors) for component, vectors in parts.items()}
            for token, parts in adapter.embeddings.items()
        },
        "trigger_words": adapter.trigger_words,
        "tensor_count": adapter.tensor_count,
        "covered": adapter.covered,
        "ignored": list(adapter.ignored),
        "refused": list(adapter.refused),
        "warnings": list(adapter.warnings),
        "hashes": {"sha256": adapter.sha256, "autov2": adapter.autov2, "autov3": adapter.autov3},
    }


def _component(deltas: dict[str, Delta]) -> dict[str, Any]:
    return {
        "modules": sorted(deltas),
        "ranks": _sorted(delta.rank for delta in deltas.values()),
        "alphas": _sorted(delta.alpha for delta in deltas.values()),
        "scales": _sorted(delta.scale for delta in deltas.values()),
        "dtypes": sorted({delta.dtype for delta in deltas.values()}),
    }


def _sorted(numbers: Iterable[float | None]) -> list[float | None]:
    return sorted(set(numbers), key=lambda number: (number is not None, number or 0))

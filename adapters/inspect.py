"""What there is to know about an adapter, as plain data for a page, a command line or JSON."""

from collections import Counter
from typing import Any

from .adapter import Adapter
from .delta import Delta
from .metadata import title

__all__ = ["inspect_adapter"]


def inspect_adapter(adapter: Adapter) -> dict[str, Any]:
    """A report of numbers, text, lists and dicts, ready for `json.dumps`. Reads the whole file once for the hashes.

    `components` has for each component that the adapter changes: `modules` (the module paths), `ranks`, `alphas` (None
    where the file gives none), `scales` and `dtypes`, each distinct value once and sorted.
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
        "trigger_words": adapter.trigger_words,
        "tensor_count": adapter.tensor_count,
        "ignored": list(adapter.ignored),
        "warnings": list(adapter.warnings),
        "hashes": {"sha256": adapter.sha256, "autov2": adapter.autov2, "autov3": adapter.autov3},
    }


def _component(deltas: dict[str, Delta]) -> dict[str, Any]:
    alphas = {delta.alpha for delta in deltas.values()}
    return {
        "modules": sorted(deltas),
        "ranks": sorted({delta.rank for delta in deltas.values()}),
        "alphas": sorted(alphas, key=lambda alpha: (alpha is not None, alpha or 0)),
        "scales": sorted({delta.scale for delta in deltas.values()}),
        "dtypes": sorted({delta.dtype for delta in deltas.values()}),
    }

"""Our own pictures, whose record has every setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lorablend.app.pictures.metadata.found import START_LOST, Found
from lorablend.app.pictures.record import Record
from lorablend.engine.settings import SETTINGS

__all__ = ["read_record"]


def _is_lost(_name: str) -> bool:
    return False


def read_record(
    record: Record, suffix: str, order: Mapping[str, Any] | None = None, is_kept: Callable[[str], bool] = _is_lost
) -> Found:
    """Read a record.

    Args:
        record: The record.
        suffix: The ending of the picture's name, which tells its format.
        order: The order of its job, which names the pictures that it started from; None if it is not known.
        is_kept: Whether an upload is still there.
    """
    request, found, order = record.request, Found("lorablend", text=record.to_json(), record=record), order or {}
    items = [dict(item) for item in request.blend["items"]]
    ordered = order.get("blend", [])
    ordered = ordered.get("items", []) if isinstance(ordered, Mapping) else ordered
    for index, item in enumerate(items):
        mask = item.get("mask")
        if isinstance(mask, str):  # a picture, of which the record has only the name
            known = ordered[index].get("mask") if index < len(ordered) and isinstance(ordered[index], dict) else None
            if isinstance(known, str) and is_kept(known):
                item["mask"] = known
            else:
                found.lacks(f"the mask of {item['adapter']} is not in the file")
                del item["mask"]
    values = {name: getattr(request, name) for name in SETTINGS if name not in ("batch", "strength")} | {
        "blend": request.blend | {"items": items},
        "steps": None if request.timesteps else request.steps,
        "seed": record.seed,
        "model": record.model,
        "format": {".png": "png", ".webp": "webp"}.get(suffix.lower(), "jpeg"),
    }
    pictures = {key: order[key] for key in ("image", "mask") if key in order and is_kept(order[key])}
    if request.strength is not None and "image" in pictures:
        values |= pictures | {"strength": request.strength}
    elif request.strength is not None:
        found.lacks(START_LOST)
    found.settings = {name: value for name, value in values.items() if value is not None}
    found.hashes = {used.name: used.sha256 for used in record.adapters}
    return found

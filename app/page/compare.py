"""Comparisons: the same seed with all pedals, without each one, and without any."""

from __future__ import annotations

import secrets
from typing import Any

from lorablend.adapters.errors import RequestError
from lorablend.app.orders.compare import ComparisonMember, DrawOrder
from lorablend.app.orders.draw import Draw
from lorablend.app.orders.kinds import submit_order
from lorablend.app.service import Service

__all__ = ["compare"]


def compare(service: Service, draw: Draw, client: str) -> None:
    """Queue the drawings. `comparison` in their requests has a common name and a label for each.

    Raises:
        RequestError: No pedal is on, or the queue has no room for all drawings.
        LorablendError: As `Service.draw`.
    """
    blend: dict[str, Any] = draw.blend if isinstance(draw.blend, dict) else {"items": draw.blend}
    items = blend["items"]
    if not items:
        raise RequestError("no pedal is on; add one, or turn one on")
    draw = draw.with_seed().model_copy(update={"count": 1})
    variants = [("all pedals", items)]
    if len(items) > 1:
        variants += [(f"without {item['adapter']}", items[:i] + items[i + 1 :]) for i, item in enumerate(items)]
    variants.append(("no pedal", []))
    if (room := service.jobs.room("draw", client)) < len(variants):
        raise RequestError(
            f"the comparison has {len(variants)} pictures, but the queue has room for {room}; try again later"
        )
    drawings = [(label, draw.model_copy(update={"blend": blend | {"items": kept}})) for label, kept in variants]
    for _, drawing in drawings:  # all, before the first one is queued
        service.drawing.check(drawing)
    name = secrets.token_hex(8)
    for label, drawing in drawings:
        comparison = ComparisonMember(name=name, label=label)
        order = DrawOrder(**drawing.model_dump(exclude_defaults=True), comparison=comparison)
        submit_order(service.jobs, order, client)

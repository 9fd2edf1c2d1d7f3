"""Compare: the same seed with all pedals, without each of them, and without any."""

from __future__ import annotations

from typing import Any

from lorablend.adapters.errors import RequestError
from lorablend.app.draw import Draw
from lorablend.app.page_results import Comparison
from lorablend.app.service import Service

__all__ = ["compare"]


def compare(service: Service, draw: Draw, client: str) -> Comparison:
    """Queue the drawings. Raises RequestError where no pedal is on, and what `Service.draw` raises."""
    blend: dict[str, Any] = draw.blend if isinstance(draw.blend, dict) else {"items": draw.blend}
    items = blend["items"]
    if not items:
        raise RequestError("no pedal is on; add one, and compare with and without it")
    draw = draw.with_seed().model_copy(update={"count": 1})
    variants = [("all pedals", items)]
    if len(items) > 1:
        variants += [(f"without {item['adapter']}", items[:i] + items[i + 1 :]) for i, item in enumerate(items)]
    variants.append(("no pedal", []))
    row: Comparison = []
    for label, left in variants:
        job = service.draw(draw.model_copy(update={"blend": blend | {"items": left}}), client)
        row.append((label, job.id))
    return row

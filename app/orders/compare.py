"""A drawing as its job keeps it: it may be one picture of the page's comparison."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from lorablend.app.orders.draw import Draw
from lorablend.app.pictures.uploads import Uploads

__all__ = ["ComparisonMember", "DrawOrder"]


class ComparisonMember(BaseModel):
    """The comparison that a drawing belongs to, and what distinguishes the drawing from the others in it."""

    model_config = ConfigDict(extra="forbid")

    name: str
    label: str


class DrawOrder(Draw, frozen=True):
    """A drawing, with its place in a comparison."""

    comparison: ComparisonMember | None = None

    def settings(self, uploads: Uploads) -> dict[str, Any]:
        """As `Draw.settings`."""
        return {key: value for key, value in super().settings(uploads).items() if key != "comparison"}

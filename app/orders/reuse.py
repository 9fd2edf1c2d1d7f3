"""From what a picture says to an order that can be drawn here, and to the lines about what is missing for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorablend.adapters.wording import shown
from lorablend.app.library.shelf import Shelf
from lorablend.app.orders.draw import Draw
from lorablend.app.pictures.metadata.found import Found, stem
from lorablend.engine.schedulers import SCHEDULERS

__all__ = ["ReusedDrawing", "order_of"]


@dataclass(frozen=True)
class ReusedDrawing:
    """A picture's drawing.

    Attributes:
        program: The program that wrote the picture.
        draw: The order.
        missing: One line for each part of it that does not exist here.
    """

    program: str
    draw: Draw
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As REST and the command line give it: the settings that the picture has, by their names in an order."""
        settings = self.draw.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        return {"program": self.program, "settings": settings, "missing": list(self.missing)}


def order_of(found: Found, shelf: Shelf | None, models: Mapping[str, str] | None) -> ReusedDrawing:
    """Replace the names of adapters and model by those they have here; list and leave out what does not exist here.

    Args:
        found: What the picture says.
        shelf: The adapters here; None keeps the picture's names.
        models: The models here, by their names, with those of their folders, the default first; None keeps the
            picture's name.
    """
    fields, missing = dict(found.settings), list(found.missing)
    if "blend" in fields and shelf is not None:
        items = []
        for item in fields["blend"].get("items", ()):
            name, trouble = _find(shelf, item["adapter"], found.hashes.get(item["adapter"], ""))
            missing += [" ".join(trouble.split())] if trouble else []
            items += [item | {"adapter": name}] if name else []
        fields["blend"] = fields["blend"] | {"items": items}
    if models is not None:
        model = fields.pop("model", None)
        here = next((name for name, folder in models.items() if model in (name, folder)), None)
        if here is not None:
            fields["model"] = here
        elif model:
            missing.append(f"the model {shown(model)} is not here; {next(iter(models))} is used")
    scheduler, spacing = fields.get("scheduler"), fields.get("spacing")
    if scheduler and spacing and spacing not in SCHEDULERS[scheduler].spacings:
        missing.append(f"the scheduler {scheduler} has no spacing {spacing} here; the model's own is used")
        del fields["spacing"]
    draw = Draw.model_validate({"prompt": ""} | fields)
    return ReusedDrawing(found.program, draw, tuple(dict.fromkeys(missing)))


def _find(shelf: Shelf, name: str, digest: str) -> tuple[str, str]:
    """As `Shelf.find`, also without the folder that a name has in another program."""
    here, trouble = shelf.find(name, digest)
    return (here, trouble) if here or stem(name) == name else shelf.find(stem(name), digest)

"""What a drawing job asks for: the form that page, REST and MCP fill in, kept as JSON in the queue."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lorablend.adapters import parse_prompt
from lorablend.adapters.blends.tags import checked_name
from lorablend.adapters.errors import BlendError
from lorablend.adapters.wording import shown
from lorablend.app.pictures.uploads import Uploads
from lorablend.engine.request import MAX_BATCH, MAX_SEED

__all__ = ["Draw"]

Text = Annotated[str, Field(max_length=20_000)]


class Draw(BaseModel):
    """Fields of `Pipeline.generate`, whose defaults hold for what is left out.

    blend: a blend's JSON form, or a list of its items, of [name, weight], or of texts of tags. Adapters are names in
    the library, never paths; a mask is a box, or the name of an upload. seed: None draws one when the job is submitted.
    count: pictures with the seeds from there on. image, mask: names of uploads. model: a name of the server's models,
    None for the first one.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    prompt: Text
    negative_prompt: Text | None = None
    blend: dict[str, Any] | list[Any] = Field(default_factory=list)
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance_scale: float = 5.0
    seed: Annotated[int, Field(ge=0, le=MAX_SEED - MAX_BATCH)] | None = None
    scheduler: str | None = None
    spacing: str | None = None
    timesteps: list[float] | None = None
    count: Annotated[int, Field(ge=1, le=MAX_BATCH)] = 1
    image: str | None = None
    strength: float | None = None
    mask: str | None = None
    model: str | None = None
    format: Literal["png", "jpeg", "webp"] = "png"

    def with_seed(self) -> Draw:
        """The same with a seed, so that a job that is begun again draws the same pictures."""
        return self if self.seed is not None else self.model_copy(update={"seed": secrets.randbelow(2**32)})

    def settings(self, uploads: Uploads) -> dict[str, Any]:
        """The arguments for `Pipeline.generate`, for the first picture.

        Raises BlendError for a blend with paths in it, RequestError for an upload that is not there.
        """
        own = self.model_dump(exclude={"blend", "count", "model", "format", "image", "mask"})
        return own | {
            "blend": _named(self.blend, uploads),
            "image": None if self.image is None else uploads.open(self.image).convert("RGB"),
            "mask": None if self.mask is None else uploads.open(self.mask).convert("L"),
        }


def _named(blend: dict[str, Any] | list[Any], uploads: Uploads) -> dict[str, Any] | list[Any]:
    """The blend with names of adapters that cannot be paths."""
    if isinstance(blend, dict):
        items = blend.get("items", [])
        if not isinstance(items, list):
            raise BlendError("the blend's items are no list; give a list of adapters")
        return blend | {"items": _named_items(items, uploads)}
    return _named_items(blend, uploads)


def _named_items(items: list[Any], uploads: Uploads) -> list[Any]:
    named: list[Any] = []
    for item in items:
        if isinstance(item, str):  # a stranger's, like the prompt: as there, a tag has no paths
            rest, entries = parse_prompt(item)
            if rest or not entries:
                raise BlendError(f'"{shown(item)}" is more than tags; write <lora:ink:0.8>, one after the other')
            named += entries
        else:
            named.append(_named_item(item, uploads))
    return named


def _named_item(item: Any, uploads: Uploads) -> Any:
    if isinstance(item, list) and len(item) == 2 and isinstance(item[0], str):
        return (checked_name(item[0]), item[1])
    if isinstance(item, Mapping) and isinstance(item.get("adapter"), str):
        mask = item.get("mask")
        named = {**item, "adapter": checked_name(item["adapter"])}
        return named | {"mask": uploads.path(mask)} if isinstance(mask, str) else named
    raise BlendError(f"{str(item)[:80]!r} is no entry of a blend; give a name and a weight")

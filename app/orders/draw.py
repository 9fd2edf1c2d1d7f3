"""The order of a drawing job: filled in by the page, REST and MCP, and kept as JSON in the queue."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from lorablend.adapters import parse_prompt
from lorablend.adapters.blends.tags import checked_name
from lorablend.adapters.errors import BlendError
from lorablend.adapters.wording import shown
from lorablend.app.pictures.uploads import Uploads
from lorablend.engine.settings import BATCH, SETTINGS, Settings

__all__ = ["Count", "Draw", "Seed", "Text"]

# What has to hold before the engine sees an order: the queue stores the texts and counts on from the seed.
Text = Annotated[str, Field(max_length=SETTINGS["prompt"].longest)]
Seed = Annotated[int, Field(ge=SETTINGS["seed"].low, le=SETTINGS["seed"].high)]
Count = Annotated[int, Field(ge=BATCH.low, le=BATCH.high)]


def _describe(schema: dict[str, Any], order: type[BaseModel]) -> None:
    """Put the docstring into the schema: pydantic leaves out that of a dataclass, which `Settings` is."""
    schema["description"] = inspect.getdoc(order)


class Draw(BaseModel, Settings, frozen=True, extra="forbid", protected_namespaces=(), json_schema_extra=_describe):
    """The settings of a picture, which `Pipeline.generate` checks, and what else a drawing needs.

    Attributes:
        blend: A blend's JSON form, or a list of its items, of [name, weight], or of texts of tags. Adapters are names
            in the library, never paths; a mask is a box, or the name of an upload.
        seed: None draws one when the job is submitted.
        count: How many pictures to draw, with the seeds from the first one on.
        image, mask: Names of uploads.
        model: A name of the server's models, None for the first one.
    """

    prompt: Annotated[Text, SETTINGS["prompt"]]
    negative_prompt: Annotated[Text | None, SETTINGS["negative_prompt"]] = None
    blend: dict[str, Any] | list[Any] = Field(default_factory=list)
    seed: Annotated[Seed | None, SETTINGS["seed"]] = None
    count: Annotated[Count, BATCH] = BATCH.default
    image: str | None = None
    mask: str | None = None
    model: str | None = None
    format: Literal["png", "jpeg", "webp"] = "png"

    def with_seed(self) -> Draw:
        """The same with a seed, so that a job that is started again draws the same pictures."""
        return self if self.seed is not None else self.model_copy(update={"seed": secrets.randbelow(2**32)})

    def settings(self, uploads: Uploads) -> dict[str, Any]:
        """The arguments for `Pipeline.generate`, for the first picture.

        Raises:
            BlendError: the blend has paths in it.
            RequestError: an upload does not exist.
        """
        return self.model_dump(include=set(SETTINGS)) | {
            "blend": _named(self.blend, uploads),
            "image": None if self.image is None else uploads.open(self.image),
            "mask": None if self.mask is None else uploads.open(self.mask),
        }


def _named(blend: dict[str, Any] | list[Any], uploads: Uploads) -> dict[str, Any] | list[Any]:
    """The blend with names of adapters that cannot be paths."""
    if isinstance(blend, dict):
        items = blend.get("items", [])
        if not isinstance(items, list):
            raise BlendError("the blend's items are not a list; give a list of adapters")
        return blend | {"items": _named_items(items, uploads)}
    return _named_items(blend, uploads)


def _named_items(items: list[Any], uploads: Uploads) -> list[Any]:
    named: list[Any] = []
    for item in items:
        if isinstance(item, str):  # untrusted like the prompt, so its tags have no paths either
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
    raise BlendError(f"{str(item)[:80]!r} is not an entry of a blend; give a name and a weight")

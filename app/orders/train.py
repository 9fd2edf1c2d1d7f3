"""The order for a training job: filled in by the page and REST, kept as JSON in the queue."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, create_model

from lorablend.train.config import SETTINGS
from lorablend.train.settings import TrainSetting

__all__ = ["Train"]

Name = Annotated[str, Field(min_length=1, max_length=200)]


def _field_of(setting: TrainSetting) -> tuple[Any, Any]:
    """A field that may be left out. The schema tells the setting's limits, which `TrainConfig` enforces.

    Here only the length of a text is checked, as for every other text that enters the queue.
    """
    kind: Any = Literal[setting.choices] if setting.choices else setting.kind
    known = {} if setting.default is None else {"default": setting.default}
    field = Field(
        None,
        description=f"{setting.help} Default: {setting.default_text}.",
        max_length=setting.bounds.get("maxLength"),
        json_schema_extra={**setting.bounds, **known},
    )
    return kind | None, field


_FIELDS: dict[str, Any] = {
    name: _field_of(setting) for name, setting in SETTINGS.items() if not (setting.required or setting.face.no_order)
}
_Settings = create_model("_Settings", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **_FIELDS)


class Train(_Settings):
    """A training on a data set of the server; every setting that is None or missing takes its default."""

    set: Name = Field(description="Name of the data set.")
    name: Name = Field(description="Name of the new adapter.")
    model: Name | None = Field(
        None,
        description='Base model: "demo", a Hugging Face id, or the name of a diffusers folder or checkpoint in the '
        "server's folder sources. Default: demo, if the server draws with it.",
    )
    anew: bool = Field(False, description="Discard what a stopped training of this name has learned, and start over.")

    def settings(self) -> dict[str, Any]:
        """The fields of `TrainConfig` that were given, without the base model."""
        names = type(self).model_fields.keys() & SETTINGS.keys() - {"model"}
        return self.model_dump(exclude_none=True, include=names)

"""The settings of a picture as fields of other programs' requests, made from `lorablend.engine.settings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, create_model

from lorablend.engine.settings import Setting

__all__ = ["body_of"]


def body_of(name: str, settings: Mapping[str, Setting]) -> type[BaseModel]:
    """A pydantic model with an optional field for each setting. settings: by the names of the fields."""
    fields: dict[str, Any] = {field: (_type(setting) | None, None) for field, setting in settings.items()}
    return create_model(name, **fields)


def _type(setting: Setting) -> Any:
    kind: Any = tuple[float, ...] if setting.kind is tuple else setting.kind
    allow_infinite = False if setting.kind is float else None
    return Annotated[kind, Field(max_length=setting.longest, allow_inf_nan=allow_infinite)]

"""The orders of jobs that make models: page and REST fill them in, the queue keeps them as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Bake", "Compress", "Convert"]

Name = Annotated[str, Field(max_length=180)]


class Convert(BaseModel):
    """A conversion to OpenVINO."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    source: Name
    """A Hugging Face id (owner/name), or the name of a diffusers folder or .safetensors checkpoint in DATA/sources or
    next to a model of the server; never a path."""
    name: Name
    """What to call the new model."""
    weights: Literal["fp16", "int8", "fp32"] = "fp16"
    config: Name | None = None
    """For a checkpoint: the name of a diffusers folder, as in source."""


class Compress(BaseModel):
    """A copy of a model with its weights in 8 bits."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)

    name: Name
    """What to call the copy."""
    model: str | None = None
    """A model of the server; null for the default."""


class Bake(BaseModel):
    """A copy of a model with a blend in its weights."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)

    name: Name
    """What to call the copy."""
    blend: dict[str, Any] | list[Any]
    """As in a drawing."""
    model: str | None = None
    """A model of the server; null for the default."""

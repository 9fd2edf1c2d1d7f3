"""What the jobs ask for that make models: the forms that page and REST fill in, kept as JSON in the queue."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Bake", "Compress", "Convert"]

Name = Annotated[str, Field(max_length=180)]


class Convert(BaseModel):
    """source: a Hugging Face id (owner/name), or the name of a diffusers folder or a .safetensors checkpoint that lies
    in DATA/sources or beside a model of the server; never a path. config: for a checkpoint, such a diffusers folder.
    """

    model_config = ConfigDict(extra="forbid")

    source: Name
    name: Name
    weights: Literal["fp16", "int8", "fp32"] = "fp16"
    config: Name | None = None


class Compress(BaseModel):
    """To 8 bits. model: a name of the server's models, None for the first one."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: Name
    model: str | None = None


class Bake(BaseModel):
    """model: a name of the server's models, None for the first one. blend: as in a `Draw`."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: Name
    blend: dict[str, Any] | list[Any]
    model: str | None = None

"""What a job of the kind "add" is to bring into the library, kept as JSON in the queue."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Add"]


class Add(BaseModel):
    """An adapter from elsewhere.

    Attributes:
        source: An http or https address without user, password and query, which may hold a token; or
            hf:owner/repo[/file].
        name: What to call the adapter in the library; "" for the source's own name.
        whole: Whether `source` is the whole address, as it was given.
    """

    model_config = ConfigDict(extra="forbid")

    source: str
    name: str
    whole: bool

"""What OpenAI's image API replies, for openapi.json."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["ImagesReply", "ModelCard", "ModelCards"]


class OpenAIReply(BaseModel):
    """What all replies share."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ModelCard(OpenAIReply):
    """A base model."""

    id: str
    object: Literal["model"]
    created: int
    """Seconds since 1970."""
    owned_by: str


class ModelCards(OpenAIReply):
    """All base models."""

    object: Literal["list"]
    data: list[ModelCard]


class Image(OpenAIReply):
    """A picture, as base64 or by its address."""

    b64_json: str | None = None
    url: str | None = None
    seed: int


class TokenDetails(OpenAIReply):
    """Always 0: nothing is counted here."""

    image_tokens: int
    text_tokens: int


class Usage(OpenAIReply):
    """Always 0: nothing is counted here."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: TokenDetails


class ImagesReply(OpenAIReply):
    """The pictures that were drawn."""

    created: int
    """Seconds since 1970."""
    data: list[Image]
    background: str
    output_format: str
    quality: str
    size: str
    usage: Usage

"""What a training job asks for: the form that page and REST fill in, kept as JSON in the queue."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Train"]

Name = Annotated[str, Field(min_length=1, max_length=200)]
Word = Annotated[str, Field(max_length=1000)]


class Train(BaseModel):
    """The data set, the adapter's name and the base model; the rest are fields of `TrainConfig`, None for its defaults.

    model: "demo", a Hugging Face id, or the name of a diffusers folder or checkpoint in the server's folder `sources`;
    None for "demo" where that is drawn with. anew: forget what a stopped training of this name has learnt.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    set: Name
    name: Name
    model: Name | None = None
    anew: bool = False
    algorithm: Literal["lora", "dora", "locon", "loha", "lokr"] | None = None
    rank: int | None = None
    alpha: float | None = None
    text_encoder: bool | None = None
    steps: int | None = None
    batch: int | None = None
    resolution: int | None = None
    optimizer: Literal["adamw", "prodigy"] | None = None
    learning_rate: float | None = None
    schedule: Literal["cosine", "constant"] | None = None
    trigger: Word | None = None
    caption_dropout: float | None = None
    flip: bool | None = None
    seed: int | None = None
    sample_every: int | None = None
    checkpoints: int | None = None
    ema: float | None = None
    noise_offset: float | None = None
    validation_fraction: float | None = None
    keys: Literal["kohya", "diffusers"] | None = None

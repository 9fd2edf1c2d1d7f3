"""A checked request for pictures, and what comes back."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from PIL import Image

from lorablend.adapters import Blend
from lorablend.adapters.errors import RequestError
from lorablend.engine.settings import BATCH, Settings

__all__ = ["Callback", "Drawn", "Inputs", "Request", "Result", "Step"]


@dataclass(frozen=True, kw_only=True)
class Request(Settings):
    """One call of `Pipeline.generate`, every default filled in.

    Attributes:
        blend: The blend's JSON form, which `generate` accepts too.
        batch: Picture i of the batch has the seed `seed + i`.
        spacing: None where timesteps are given, one for each step.
        strength: None without an input picture.
    """

    blend: dict[str, Any]
    batch: Annotated[int, BATCH]
    width: int = dataclasses.field()  # field(), for these have no default here
    height: int = dataclasses.field()
    steps: int = dataclasses.field()
    seed: int = dataclasses.field()
    scheduler: str = dataclasses.field()

    @property
    def seeds(self) -> list[int]:
        return [self.seed + i for i in range(self.batch)]

    def to_json(self) -> str:
        """Lossless: `Request.from_json(request.to_json()) == request`."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Request":
        """Read a request of this or an older lorablend. Raises RequestError for unknown fields and wrong values."""
        fields = json.loads(text)
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise RequestError(f"request has unknown fields {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        if isinstance(fields["blend"], list):  # (name, weight) pairs, from before blends knew more than weights
            items = [{"adapter": str(name), "weight": float(weight)} for name, weight in fields["blend"]]
            fields["blend"] = {"mode": "sum", "items": items}
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The arrays that come with a request.

    Attributes:
        image: uint8 [height, width, 3].
        mask: f32 [height, width] in 0..1, 1 = repaint.
        latents: f32 [batch, 4, height/8, width/8], unit variance, in place of the seeds' own noise.
    """

    image: np.ndarray | None = None
    mask: np.ndarray | None = None
    latents: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One denoising step that has just ended.

    Attributes:
        index: From 0 to steps - 1.
        picture: From 0 to pictures - 1.
        latent: The clean picture as the scheduler predicts it, f32 [1, 4, height/8, width/8], in the VAE's own scale.
    """

    index: int
    steps: int
    picture: int
    pictures: int
    sigma: float
    latent: np.ndarray

    def preview(self) -> Image.Image:
        """A rough picture of one pixel per latent cell, without the VAE."""
        from lorablend.engine.preview import latent_to_image

        return latent_to_image(self.latent)


Callback = Callable[[Step], bool | None]
"""Called after every step; return False to stop, and `generate` raises Cancelled."""


@dataclass(frozen=True)
class Drawn:
    """A runtime's output: uint8 [height, width, 3] per seed and seconds per phase; for the rest see `Result`."""

    pictures: list[np.ndarray]
    timings: dict[str, float]
    warnings: tuple[str, ...] = ()
    rank_errors: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The pictures and how they were made.

    Attributes:
        images: images[i] was drawn with seeds[i].
        timings: Seconds per phase: blend, text, denoise, decode, total.
        rank_errors: The cost of `max_rank`, by module path of the UNet: ‖Δ - Δ of lower rank‖ / ‖Δ‖ in the Frobenius
            norm, where Δ is the blend's change of that module's weight.
    """

    images: list[Image.Image]
    seeds: list[int]
    timings: dict[str, float]
    blend: Blend
    request: Request
    warnings: tuple[str, ...] = ()
    rank_errors: dict[str, float] = dataclasses.field(default_factory=dict)

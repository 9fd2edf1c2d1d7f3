"""What a caller asks for, checked, and what comes back."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from PIL import Image

from lorablend.adapters import Blend
from lorablend.adapters.errors import RequestError
from lorablend.adapters.wording import shown

__all__ = ["Callback", "Drawn", "Inputs", "Request", "Result", "Step", "plain_timesteps"]

MAX_SIDE = 4096
MAX_BATCH = 64
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of `Pipeline.generate`, every default resolved.

    blend is the blend's JSON form, which `generate` takes too; width and height are in pixels, multiples of 8; seed is
    the first picture's, picture i has seed + i; strength is None without an input picture. spacing is None where
    timesteps are given, one for each step.
    """

    prompt: str
    negative_prompt: str | None
    blend: dict[str, Any]
    width: int
    height: int
    steps: int
    guidance_scale: float
    seed: int
    scheduler: str
    spacing: str | None
    batch: int
    strength: float | None
    timesteps: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check_text("prompt", self.prompt)
        _check_text("negative_prompt", self.negative_prompt or "")
        _check_side("width", self.width)
        _check_side("height", self.height)
        _check_range("steps", self.steps, 1, 1000)
        _check_range("batch", self.batch, 1, MAX_BATCH)
        _check_range("seed", self.seed, 0, MAX_SEED - self.batch)
        if not math.isfinite(self.guidance_scale) or self.guidance_scale < 0:
            raise RequestError(
                f"guidance_scale is {self.guidance_scale}; give a number of 0 or more (1 or less: no guidance)"
            )
        if self.strength is not None and not 0 < self.strength <= 1:
            raise RequestError(f"strength is {self.strength}; give a number above 0, at most 1")

    @property
    def seeds(self) -> list[int]:
        return [self.seed + i for i in range(self.batch)]

    def to_json(self) -> str:
        """Lossless: `Request.from_json(request.to_json()) == request`."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Request":
        fields = json.loads(text)
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise RequestError(f"request has unknown fields {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        if isinstance(fields["blend"], list):  # (name, weight) pairs, from before blends knew more than weights
            items = [{"adapter": str(name), "weight": float(weight)} for name, weight in fields["blend"]]
            fields["blend"] = {"mode": "sum", "items": items}
        if fields.get("timesteps") is not None:
            fields["timesteps"] = plain_timesteps(fields["timesteps"])
        return cls(**fields)


def plain_timesteps(timesteps: Iterable[float]) -> tuple[float, ...]:
    """Timesteps as Python's own numbers, whole ones as int. Raises RequestError for what is no number, or for none."""
    values = list(timesteps)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise RequestError(f"timesteps has {shown(value)}; give numbers")
    if not values:
        raise RequestError("timesteps is empty; give one for each step")
    return tuple(int(value) if value == int(value) else float(value) for value in values)


def _check_text(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{name} has a broken character at place {error.start + 1}; give text in UTF-8") from error


def _check_side(name: str, value: int) -> None:
    _check_whole(name, value)
    nearest = round(min(max(value, 64), MAX_SIDE) / 8) * 8  # first clamped: beyond all floats there are ints
    if value != nearest:
        raise RequestError(
            f"{name} is {shown(value)}; it must be a multiple of 8 from 64 to {MAX_SIDE}, the nearest is {nearest}"
        )


def _check_range(name: str, value: int, low: int, high: int) -> None:
    _check_whole(name, value)
    if not low <= value <= high:
        raise RequestError(f"{name} is {value}; give {low} to {high}")


def _check_whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise RequestError(f"{name} is {value!r}; give a whole number")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The arrays that come with a request.

    image: uint8 [height, width, 3]; mask: f32 [height, width] in 0..1, 1 = repaint; latents: f32
    [batch, 4, height/8, width/8], unit variance, in place of the seeds' own noise.
    """

    image: np.ndarray | None = None
    mask: np.ndarray | None = None
    latents: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One denoising step that has just ended.

    index counts from 0 to steps - 1; picture from 0 to pictures - 1. latent is what the scheduler thinks the clean
    picture is, f32 [1, 4, height/8, width/8], in the VAE's own scale; preview draws it small.
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
"""Called after every step; False stops the work, and `generate` raises Cancelled."""


@dataclass(frozen=True)
class Drawn:
    """What a runtime brings back: uint8 [height, width, 3] per seed, seconds per phase, and see `Result`."""

    pictures: list[np.ndarray]
    timings: dict[str, float]
    warnings: tuple[str, ...] = ()
    rank_errors: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Result:
    """images[i] was drawn with seeds[i]; timings are seconds per phase: blend, text, denoise, decode, total.

    rank_errors: by module path of the UNet, what `max_rank` cost: ‖Δ - Δ of lower rank‖ / ‖Δ‖ in the Frobenius norm, Δ
    the blend's change of that module's weight.
    """

    images: list[Image.Image]
    seeds: list[int]
    timings: dict[str, float]
    blend: Blend
    request: Request
    warnings: tuple[str, ...] = ()
    rank_errors: dict[str, float] = dataclasses.field(default_factory=dict)

"""What callers give `Pipeline.generate` besides settings, in any of the forms whose meaning is plain."""

import os
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lorablend.adapters import Adapter, Blend, BlendItem, Entry, parse_prompt
from lorablend.adapters.errors import BlendError, RequestError
from lorablend.adapters.wording import shown
from lorablend.engine.mask import greys
from lorablend.engine.upright import upright

__all__ = ["ImageLike", "entries_of", "latents_of", "on_white", "picture_of"]

ImageLike = Image.Image | str | os.PathLike[str] | np.ndarray
"""A picture, a picture's file, or an array [height, width] or [height, width, 1, 3 or 4]: whole numbers from 0 to 255,
truth values, or fractions from 0 to 1."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def picture_of(name: str, given: Any) -> Image.Image | None:
    """The picture that was given as the argument `name`. Raises RequestError for anything that is none."""
    if given is None or isinstance(given, Image.Image):
        return given
    if isinstance(given, np.ndarray):
        return _of_array(name, given)
    if not isinstance(given, str | os.PathLike):
        raise RequestError(f"{name} is of type {type(given).__name__}; give a PIL image, a path or an array")
    try:
        with Image.open(given) as picture:
            picture.load()
            return upright(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else "not a picture"
        raise RequestError(f"{name} {shown(os.fspath(given))} cannot be read: {reason}") from error


def _of_array(name: str, array: np.ndarray) -> Image.Image:
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[-1] not in _MODES or 0 in pixels.shape:
        raise RequestError(
            f"{name} has the shape {list(array.shape)}; give [height, width] or [height, width, 1, 3 or 4]"
        )
    whole = pixels.dtype.kind in "iub"
    if not whole and pixels.dtype.kind != "f":
        raise RequestError(f"{name} is an array of {array.dtype}; give numbers")
    scale = 1 if whole and pixels.dtype != bool else 255
    scaled = pixels.astype(np.float64) * scale
    if not np.isfinite(scaled).all() or scaled.min() < 0 or scaled.max() > 255:
        wanted = "whole numbers from 0 to 255" if whole else "fractions from 0 to 1"
        raise RequestError(f"{name} has values from {pixels.min():g} to {pixels.max():g}; give {wanted}")
    values = scaled.round().astype(np.uint8)
    return Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)


def on_white(picture: Image.Image) -> Image.Image:
    """The picture in RGB, with what is transparent in it on white, as A1111 has it."""
    if picture.mode.startswith("I"):  # 16 bits
        return Image.fromarray((greys(picture) * 255).round().astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    clear = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")


def latents_of(given: Any) -> np.ndarray | None:
    """The latents as an array of numbers. Raises RequestError for anything that is none."""
    if given is None:
        return None
    try:
        array = np.asarray(given, np.float32)
    except (TypeError, ValueError, RuntimeError):
        raise RequestError(f"latents is of type {type(given).__name__}; give an array of numbers") from None
    if not np.isfinite(array).all():
        raise RequestError("latents hold NaN or infinity; give finite numbers")
    return array


def entries_of(given: Any) -> list[Entry]:
    """The blend as entries of `resolve_blend`: a text is tags or one adapter's name, and a pair is one entry.

    Raises BlendError for anything that is no blend.
    """
    if given is None:
        return []
    if isinstance(given, str):
        if not given.lstrip().startswith("<"):
            return [(given, 1.0)] if given.strip() else []
        rest, entries = parse_prompt(given)
        if rest:
            raise BlendError(f'blend is "{shown(given)}", which is more than tags; write <lora:ink:0.8>')
        return entries
    if isinstance(given, os.PathLike | Adapter):
        return [(given, 1.0)]
    if isinstance(given, Blend | BlendItem | Mapping):
        return [given]
    if not isinstance(given, Iterable) or isinstance(given, bytes | bytearray):
        raise BlendError(f"blend is of type {type(given).__name__}; give pairs of an adapter and its weight")
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Real):
        return [given]
    return [(entry, 1.0) if isinstance(entry, Path | Adapter) else entry for entry in given]

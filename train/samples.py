"""Pictures that show how far a training is, drawn by the engine that the user draws with: same samplers, same VAE.

They are drawn on an OpenVINO folder of the base model, which is converted once per model and kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import textwrap
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock
from PIL import Image, ImageDraw, ImageFont

from lorablend.adapters.blends.tags import TAG_START
from lorablend.adapters.errors import ResourceError
from lorablend.adapters.wording import shown
from lorablend.convert import convert
from lorablend.engine import Pipeline
from lorablend.engine.disk_cache import default_cache_dir
from lorablend.train.data.captions import caption_variants

if TYPE_CHECKING:
    from lorablend.train.base import Base
    from lorablend.train.config import TrainConfig
    from lorablend.train.data.examples import Example
    from lorablend.train.data.layouts import DataSet

__all__ = ["PROMPTS", "STEPS", "Sampler", "choose_prompts", "convert_base", "openvino_folder", "texts_of"]

STEPS = 20
_CHECK_STEPS = 4  # enough for a change to be seen
PROMPTS = 3  # taken from the data where the configuration names none
_TILE = 256  # pixels, at most
_MARGIN = 10
_LINE = 18


def openvino_folder(base: Base) -> Path:
    """Where the base model is for the engine once `convert_base` has been there; complete where it exists."""
    content = json.dumps([sorted(base.hashes.items()), dict(base.scheduler)], sort_keys=True, default=str)
    return default_cache_dir() / "bases" / hashlib.sha256(content.encode()).hexdigest()[:32]


def convert_base(base: Base, say: Callable[[str], None]) -> Path:
    """Convert the base model (fp16) into the cache, if it is not there: `openvino_folder`.

    Raises what `lorablend.convert.convert` raises.
    """
    folder = openvino_folder(base)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            say(f"{base.name} is converted to OpenVINO, to draw samples with; once, a large model takes some minutes")
            source = base.source
            if source.checkpoint is None:
                convert(source.folder, folder)
            else:
                convert(source.checkpoint, folder, config=source.folder)
    return folder


def choose_prompts(config: TrainConfig, dataset: DataSet) -> tuple[str, ...]:
    """What samples are drawn of: the configuration's prompts, else captions of pictures spread over the data.

    With the trigger word, as they are trained, but without tags such as <lora:ink:0.8>: samples are drawn with the
    adapter alone. "" where the data has no captions.
    """
    if config.validation_prompts:
        return config.validation_prompts
    count = len(dataset.examples)
    chosen = [dataset.examples[index * count // PROMPTS] for index in range(PROMPTS)]
    texts = (TAG_START.sub(" ", texts_of(example)[0]) for example in chosen)
    return tuple(dict.fromkeys(" ".join(text.split()) for text in texts))


def texts_of(example: Example) -> tuple[str, ...]:
    """The texts that a picture is trained with, their tags in the order they were written in."""
    return caption_variants(example.captions, example.trigger, shuffle=False, keep_tokens=0, seed=0)


class Sampler:
    """Draws the same pictures again and again: each prompt has a seed of its own.

    folder: OpenVINO model. size: pixels of both sides; None is the model's own. precision: as for Pipeline. stop: asked
    after every step of a picture; True ends it with Cancelled. The model is compiled at the first picture and kept
    until `release`; the base model's own pictures are drawn once.
    """

    def __init__(
        self,
        folder: Path,
        prompts: Sequence[str],
        *,
        size: int | None = None,
        seed: int = 0,
        steps: int = STEPS,
        guidance_scale: float = 5.0,
        precision: str | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._folder, self._precision, self._stop = folder, precision, stop
        self._pipeline = Pipeline(folder, precision=precision)
        self.prompts = tuple(prompts) or ("",)
        self.seed, self.steps, self.guidance_scale = seed, steps, guidance_scale
        self._size = size
        self._base: list[Image.Image] | None = None
        self._check: np.ndarray | None = None

    def release(self) -> None:
        """Give the compiled model's memory back; the next picture compiles it again."""
        self._pipeline = Pipeline(self._folder, precision=self._precision)

    def draw(self, adapter: Path | None) -> list[Image.Image]:
        """A picture of each prompt with an adapter file at weight 1, or with none."""
        return [self._draw(index, adapter, self.steps) for index in range(len(self.prompts))]

    def grid(self, adapter: Path, path: Path, label: str) -> None:
        """Write a PNG: a row for each prompt, the base model's picture and the adapter's, under `label`, side by side.

        Whole or not at all; a file that is there is replaced. ResourceError where the disk refuses.
        """
        if self._base is None:
            self._base = self.draw(None)
        pictures = self.draw(adapter)
        rows = [
            (f"{prompt}   seed {self.seed + index}", [self._base[index], pictures[index]])
            for index, prompt in enumerate(self.prompts)
        ]
        _save(_sheet(("without", label), rows), path)

    def differs(self, adapter: Path) -> bool:
        """Whether a picture with the adapter is another one than without it; a few steps of the first prompt."""
        if self._check is None:
            self._check = np.array(self._draw(0, None, _CHECK_STEPS))
        return not np.array_equal(np.array(self._draw(0, adapter, _CHECK_STEPS)), self._check)

    def _draw(self, index: int, adapter: Path | None, steps: int) -> Image.Image:
        result = self._pipeline.generate(
            self.prompts[index],
            blend=[] if adapter is None else [(str(adapter), 1.0)],
            width=self._size,
            height=self._size,
            steps=steps,
            guidance_scale=self.guidance_scale,
            seed=self.seed + index,
            callback=lambda _: not self._stop(),
        )
        return result.images[0]


def _sheet(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    """Labelled columns of pictures, each row under its text."""
    width = min(_TILE, rows[0][1][0].width)
    font = ImageFont.load_default(13)
    full = _MARGIN + len(columns) * (width + _MARGIN)
    letters = max(10, int((full - 2 * _MARGIN) / 7))
    texts = [textwrap.wrap(text, letters)[:4] or [""] for text, _ in rows]
    tiles = [[_fit(picture, width) for picture in pictures] for _, pictures in rows]
    height = (
        2 * _MARGIN
        + _LINE
        + sum(len(lines) * _LINE + row[0].height + _MARGIN for lines, row in zip(texts, tiles, strict=True))
    )
    sheet = Image.new("RGB", (full, height), "white")
    pen = ImageDraw.Draw(sheet)
    top = _MARGIN
    for column, label in enumerate(columns):
        pen.text((_MARGIN + column * (width + _MARGIN), top), label, fill="black", font=font)
    top += _LINE + _MARGIN
    for lines, row in zip(texts, tiles, strict=True):
        for line in lines:
            pen.text((_MARGIN, top), line, fill="#555555", font=font)
            top += _LINE
        for column, tile in enumerate(row):
            sheet.paste(tile, (_MARGIN + column * (width + _MARGIN), top))
        top += row[0].height + _MARGIN
    return sheet


def _fit(picture: Image.Image, width: int) -> Image.Image:
    if picture.width == width:
        return picture
    return picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)


def _save(sheet: Image.Image, path: Path) -> None:
    work = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(work, "PNG")
        os.replace(work, path)
    except OSError as error:
        raise ResourceError(f"{shown(path)} could not be written: {error.strerror or error}") from error
    finally:
        work.unlink(missing_ok=True)

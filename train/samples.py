"""Sample pictures that show the progress of a training, drawn by the engine that users draw with.

They need an OpenVINO folder of the base model, which is converted once per model and cached.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock
from PIL import Image, ImageDraw, ImageFont

from lorablend.adapters.blends.tags import TAG_START
from lorablend.adapters.errors import ResourceError
from lorablend.adapters.files.atomic import atomic_write
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
_CHECK_STEPS = 4  # enough to show a change
PROMPTS = 3  # captions taken from the data if the configuration has no prompts
_TILE = 256  # pixels, at most
_MARGIN = 10
_LINE = 18


def openvino_folder(base: Base) -> Path:
    """The folder that `convert_base` converts the base model to; complete if it exists."""
    content = json.dumps([sorted(base.hashes.items()), dict(base.scheduler)], sort_keys=True, default=str)
    return default_cache_dir() / "bases" / hashlib.sha256(content.encode()).hexdigest()[:32]


def convert_base(base: Base, say: Callable[[str], None]) -> Path:
    """Convert the base model (fp16) to `openvino_folder`, unless it exists.

    Raises what `lorablend.convert.convert` raises.
    """
    folder = openvino_folder(base)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            say(f"{base.name} is converted to OpenVINO, once, to draw samples with; a large model takes some minutes")
            source = base.source
            if source.checkpoint is None:
                convert(source.folder, folder)
            else:
                convert(source.checkpoint, folder, config=source.folder)
    return folder


def choose_prompts(config: TrainConfig, dataset: DataSet) -> tuple[str, ...]:
    """The prompts of the samples: the configuration's, else captions of pictures spread over the data.

    Captions get the trigger word, as in training, but lose tags such as <lora:ink:0.8>, for samples are drawn with the
    trained adapter alone. Without captions the prompt is "".
    """
    if config.validation_prompts:
        return config.validation_prompts
    count = len(dataset.examples)
    chosen = [dataset.examples[index * count // PROMPTS] for index in range(PROMPTS)]
    texts = (TAG_START.sub(" ", texts_of(example)[0]) for example in chosen)
    return tuple(dict.fromkeys(" ".join(text.split()) for text in texts))


def texts_of(example: Example) -> tuple[str, ...]:
    """The texts that a picture is trained with, with tags in their written order."""
    return caption_variants(example.captions, example.trigger, shuffle=False, keep_tokens=0, seed=0)


class Sampler:
    """Draws the same pictures again and again; each prompt has its own seed.

    The model is compiled for the first picture and kept until `release`; the base model's pictures are drawn once.

    Args:
        folder: The OpenVINO model.
        size: Width and height in pixels; None is the model's own.
        precision: As for `Pipeline`.
        stop: Called after every step of a picture; True ends it with Cancelled.
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
        """Free the compiled model's memory; the next picture compiles it again."""
        self._pipeline = Pipeline(self._folder, precision=self._precision)

    def draw(self, adapter: Path | None) -> list[Image.Image]:
        """Draw one picture per prompt, with an adapter file at weight 1 or without."""
        return [self._draw(index, adapter, self.steps) for index in range(len(self.prompts))]

    def grid(self, adapter: Path, path: Path, label: str) -> None:
        """Write a PNG with a row per prompt: the base model's picture, and next to it, below `label`, the adapter's.

        An existing file is replaced. Raises ResourceError if the file cannot be written.
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
        """Whether the adapter changes the picture of the first prompt, after a few steps."""
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
    """Arrange pictures in labelled columns, each row below its text."""
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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            sheet.save(part, "PNG")
    except OSError as error:
        raise ResourceError(f"{shown(path)} could not be written: {error.strerror or error}") from error

"""The demo: one prompt and seed, without adapters and with each at two weights, side by side on one sheet."""

import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lorablend.adapters.errors import ModelError
from lorablend.app.png import save_png, text_chunks
from lorablend.app.progress import step_bar
from lorablend.engine import Pipeline, Result

__all__ = ["contact_sheet", "draw_showcase"]

PROMPT = "a fox in the snow"
SEED = 7
STEPS = 8
_TILE = 256  # pixels
_MARGIN = 12
_CAPTION = 28
_WHAT_IT_IS = (
    "The demo model is a stand-in: SDXL's shape at a small size, with random weights. It draws patterns, not foxes. "
    "What it shows is real: adapters from files, blended by weight, changed without recompiling."
)

Variant = tuple[str, list[tuple[str, float]]]  # caption, blend


def draw_showcase(pipe: Pipeline, adapters: list[Path], folder: Path, say: Callable[[str], None]) -> Path:
    """Draw the base and every adapter, save all pictures and `sheet.png` to `folder`, and return the sheet's path.

    `say` gets what happens, line by line.
    """
    if not adapters:
        raise ModelError("the demo has no adapters; reinstall lorablend")
    say(_WHAT_IT_IS)
    rows = _variants(adapters)
    drawn: dict[str, Result] = {}
    for caption, blend in (variant for row in rows for variant in row):
        if caption in drawn:
            continue
        with step_bar(caption) as callback:
            drawn[caption] = pipe.generate(PROMPT, blend=blend, steps=STEPS, seed=SEED, callback=callback)
    for caption, result in drawn.items():
        seconds = result.timings
        stem = re.sub(r"[^A-Za-z0-9_.]+", "-", caption)
        path = save_png(result.images[0], folder, stem, text_chunks(result, SEED, pipe))
        say(
            f"{path.name:<32} {seconds['total']:6.2f} s, of which {seconds['blend'] * 1000:4.0f} ms to change the blend"
        )
    say("The first one compiled the model, no other did.")
    tiles = [[(caption, drawn[caption].images[0]) for caption, _ in row] for row in rows]
    sheet = save_png(contact_sheet(tiles), folder, "sheet")
    say(f"side by side: {sheet}")
    return sheet


def contact_sheet(rows: list[list[tuple[str, Image.Image]]]) -> Image.Image:
    """Pictures with captions, in rows."""
    columns = max(len(row) for row in rows)
    step_x, step_y = _TILE + _MARGIN, _TILE + _CAPTION + _MARGIN
    sheet = Image.new("RGB", (_MARGIN + columns * step_x, _MARGIN + len(rows) * step_y), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for y, row in enumerate(rows):
        for x, (caption, image) in enumerate(row):
            left, top = _MARGIN + x * step_x, _MARGIN + y * step_y
            pen.text((left, top + 4), caption, fill="black", font=font)
            tile = image.resize((_TILE, _TILE), Image.Resampling.BICUBIC)
            sheet.paste(tile, (left, top + _CAPTION))
    return sheet


def _variants(adapters: list[Path]) -> list[list[Variant]]:
    """A row per adapter, and one for all together: none, half, whole."""
    names = [adapter.stem for adapter in adapters]
    groups = [[path] for path in adapters]
    captions = names.copy()
    if len(adapters) > 1:
        groups.append(adapters)
        captions.append(" + ".join(names))
    return [
        [
            ("no adapter", []),
            *((f"{caption} at {weight:g}", [(str(p), weight) for p in group]) for weight in (0.5, 1.0)),
        ]
        for caption, group in zip(captions, groups, strict=True)
    ]

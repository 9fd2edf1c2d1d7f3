"""A comparison of adapters as a heat map with a row for each part, sizes left and cosines right; and as a table."""

from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lorablend.adapters.tools.compare import Block, Comparison

__all__ = ["draw_heatmap", "numbers", "suggestions"]

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

_CELL = 26  # height of a row, in pixels
_NORM_WIDTH, _PAIR_WIDTH = 62, 46
_GAP, _MARGIN = 34, 24
_TEXT, _SMALL = 14, 12
_INK, _FAINT, _EMPTY = (32, 32, 36), (120, 120, 128), (236, 236, 238)
# Safe for the colour-blind: white to dark blue for sizes; blue (opposed), white (independent), red (equal) for cosines.
_SIZE_COLOURS = np.array([(247, 251, 255), (158, 202, 225), (66, 146, 198), (8, 81, 156), (8, 48, 107)], float)
_COSINE_COLOURS = np.array([(33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43)], float)
_LETTERS = "ABCDEFGHIJKLMNOP"


def draw_heatmap(comparison: Comparison, path: Path) -> None:
    """Write the heat map as a PNG. The letters A, B, C… stand for the adapters, whose names are listed at the top."""
    rows = [*comparison.blocks, comparison.total]
    pairs = list(combinations(range(len(comparison.names)), 2))
    font, small = ImageFont.load_default(_TEXT), ImageFont.load_default(_SMALL)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    label_width = int(max(measure.textlength(_label(row), font) for row in rows)) + 12
    head = _MARGIN + (len(comparison.names) + 1) * 22 + 44
    left = _MARGIN + label_width
    unit = "norm of the change" + (" / norm of the weights" if comparison.relative else "")
    middle = left + max(len(comparison.names) * _NORM_WIDTH, int(measure.textlength(unit, small))) + _GAP
    legend_width = 300
    width = max(middle + len(pairs) * _PAIR_WIDTH, left + 2 * legend_width + _GAP) + _MARGIN
    height = head + len(rows) * _CELL + 8 + 84
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)

    for index, (name, weight) in enumerate(zip(comparison.names, comparison.weights, strict=True)):
        suggestion = "no change" if weight is None else f"equal size at weight {weight:.2f}"
        text = _shortened(draw, f"{_LETTERS[index]}   {name}", font, width - 2 * _MARGIN - 190)
        draw.text((_MARGIN, _MARGIN + index * 22), text, _INK, font)
        draw.text((width - _MARGIN, _MARGIN + index * 22), suggestion, _FAINT, font, anchor="ra")
    draw.text((left, head - 44), unit, _FAINT, small)
    if pairs:
        draw.text((middle, head - 44), "cosine of each pair", _FAINT, small)
    for index in range(len(comparison.names)):
        draw.text((left + (index + 0.5) * _NORM_WIDTH, head - 12), _LETTERS[index], _INK, font, anchor="mm")
    for index, (i, j) in enumerate(pairs):
        at = (middle + (index + 0.5) * _PAIR_WIDTH, head - 12)
        draw.text(at, f"{_LETTERS[i]}{_LETTERS[j]}", _INK, font, anchor="mm")

    largest = max(float(block.norms.max()) for block in rows[:-1]) or 1.0
    for number, row in enumerate(rows):
        top = head + number * _CELL + (8 if row is comparison.total else 0)
        draw.text((left - 10, top + _CELL / 2), _label(row), _INK, font, anchor="rm")
        for index, value in enumerate(row.norms):
            on_scale = value > 0 and (comparison.relative or row is not comparison.total)
            colour = _colour(_SIZE_COLOURS, min(value / largest, 1)) if on_scale else _EMPTY
            _cell(draw, left + index * _NORM_WIDTH, top, _NORM_WIDTH, colour, f"{value:.3g}" if value else "", small)
        for index, (i, j) in enumerate(pairs):
            value = row.cosines[i, j]
            missing = bool(np.isnan(value))
            colour = _EMPTY if missing else _colour(_COSINE_COLOURS, (value + 1) / 2)
            text = "" if missing else "0.00" if abs(value) < 0.005 else f"{value:+.2f}"
            _cell(draw, middle + index * _PAIR_WIDTH, top, _PAIR_WIDTH, colour, text, small)

    top = head + len(rows) * _CELL + 8 + 24
    _legend(draw, left, top, legend_width - _GAP, _SIZE_COLOURS, ("0", "", f"{largest:.3g}"), small)
    if pairs:
        words = ("-1 opposed", "0", "+1 the same")
        _legend(draw, left + legend_width, top, legend_width - _GAP, _COSINE_COLOURS, words, small)
    picture.save(path, "PNG")


def suggestions(comparison: Comparison) -> list[str]:
    """One line per adapter: its letter, its name, and the weight that gives all changes the same size."""
    texts = ("changes nothing" if w is None else f"weight {w:.2f} for equal size" for w in comparison.weights)
    return [f"{letter}  {name}: {text}" for letter, name, text in zip(_LETTERS, comparison.names, texts, strict=False)]


def numbers(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The values of the heat map as a table: the headings of its columns (the first two are texts), and its rows."""
    pairs = list(combinations(range(len(comparison.names)), 2))
    size = "size/weights" if comparison.relative else "size"
    heads = ["component", "block", "modules"]
    heads += [f"{letter} {size}" for letter in _LETTERS[: len(comparison.names)]]
    heads += [f"{_LETTERS[i]}{_LETTERS[j]} cosine" for i, j in pairs]
    rows = []
    for block in (*comparison.blocks, comparison.total):
        norms = [f"{value:.4g}" if value else "-" for value in block.norms]
        cosines = [block.cosines[pair] for pair in pairs]
        texts = ["-" if np.isnan(value) else f"{round(value, 3) + 0.0:+.3f}" for value in cosines]
        rows.append([block.component, block.name, str(block.modules), *norms, *texts])
    return heads, rows


def _label(block: Block) -> str:
    if not block.component:
        return "all"
    return block.component if block.name == "all" else f"{block.component}  {block.name}"


def _shortened(draw: ImageDraw.ImageDraw, text: str, font: Font, width: float) -> str:
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(f"{text}…", font) > width:
        text = text[:-1]
    return f"{text}…"


def _colour(colours: np.ndarray, place: float) -> tuple[int, int, int]:
    """Interpolate between the colours of a scale; `place` is from 0 to 1."""
    at = place * (len(colours) - 1)
    low = min(int(at), len(colours) - 2)
    red, green, blue = colours[low] + (at - low) * (colours[low + 1] - colours[low])
    return round(red), round(green), round(blue)


def _cell(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    width: int,
    colour: tuple[int, int, int],
    text: str,
    font: Font,
) -> None:
    draw.rectangle((x, y, x + width - 2, y + _CELL - 2), colour)
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 140
    draw.text((x + width / 2, y + _CELL / 2 - 1), text, "white" if dark else _INK, font, anchor="mm")


def _legend(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    width: int,
    colours: np.ndarray,
    words: tuple[str, str, str],
    font: Font,
) -> None:
    for column in range(width):
        draw.line((x + column, y, x + column, y + 12), _colour(colours, column / (width - 1)))
    for word, place, anchor in zip(words, (0, 0.5, 1), ("lt", "mt", "rt"), strict=True):
        draw.text((x + place * width, y + 18), word, _FAINT, font, anchor=anchor)

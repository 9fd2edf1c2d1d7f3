"""Contact sheets of a data set: small pictures with their captions."""

import textwrap
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, ImageFont

__all__ = ["PER_SHEET", "draw_sheet"]

PER_SHEET = 80
_COLUMNS = 8
_TILE = 176  # pixels, the longer side of a picture
_MARGIN = 10
_LINES = 3
_LINE = 14
_FONT = 12


def draw_sheet(tiles: Sequence[tuple[Callable[[], Image.Image], str]]) -> Image.Image:
    """Draw one sheet with eight pictures in a row.

    Args:
        tiles: For each picture a function that opens it, and its caption; a long caption is cut off with "…".
    """
    columns = min(_COLUMNS, max(1, len(tiles)))
    step_x, step_y = _TILE + _MARGIN, _TILE + _LINES * _LINE + 2 * _MARGIN
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (_MARGIN + columns * step_x, _MARGIN + rows * step_y), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
    for index, (open_picture, caption) in enumerate(tiles):
        left, top = _MARGIN + index % columns * step_x, _MARGIN + index // columns * step_y
        picture = open_picture()
        picture.thumbnail((_TILE, _TILE), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left + (_TILE - picture.width) // 2, top + _TILE - picture.height))
        width = max(1, int(_TILE / (font.getlength("n"))))
        lines = textwrap.wrap(caption, width, max_lines=_LINES, placeholder="…")
        for number, line in enumerate(lines):
            pen.text((left, top + _TILE + 4 + number * _LINE), line, fill="black", font=font)
    return sheet

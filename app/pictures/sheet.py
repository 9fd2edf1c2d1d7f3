"""Contact sheets: tables of pictures with labels, on white so that every label is legible."""

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw, ImageFont

__all__ = ["Table", "draw_sheet"]

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

_PAPER, _INK, _SOFT, _LINE = (255, 255, 255), (24, 24, 28), (104, 104, 112), (216, 216, 220)
_SMALLEST, _LARGEST = 192, 512  # pixels, the longer side of a picture on a sheet with few of them
_PIXELS = 24e6  # of all pictures together
_LONGEST = 12_000  # pixels of a row or a column of pictures
_SCALE = 4  # see `_write`
_LINES = 4  # of a label at most, twice as many for a line of the caption; longer texts are cut
_RATIO = 1.5  # width to height that `flow` aims at
# Pillow's own font has little more than ASCII; other characters are replaced by similar ones.
_STAND_INS = str.maketrans(
    {"×": "x", "–": "-", "—": "-", "−": "-", "→": "to", "ß": "ss", "ø": "o", "æ": "ae", "ł": "l"}
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of pictures, the last of which may be short.

    Attributes:
        pictures: One sequence per row.
        columns: Labels above the columns, or none.
        rows: Labels to the left of the rows, or none.
        columns_title, rows_title: What the labels are values of.
        heading: What the whole table shows.
    """

    pictures: Sequence[Sequence[Image.Image]]
    columns: Sequence[str] = ()
    rows: Sequence[str] = ()
    columns_title: str = ""
    rows_title: str = ""
    heading: str = ""


def draw_sheet(
    tables: Sequence[Table], *, title: str = "", subtitle: str = "", caption: Sequence[str] = (), flow: bool = False
) -> Image.Image:
    """Draw the title, the tables below it, and the caption at the bottom; mode RGB.

    The longer side of a picture has 192 to 512 pixels, or fewer if there are many pictures.

    Args:
        tables: The tables, from top to bottom.
        title, subtitle: Texts above the tables.
        caption: Lines below the tables.
        flow: Whether tables may be next to each other, to bring the sheet close to 3:2.
    """
    side = _side(tables)
    style = _Style.of(side)
    drawn = [_draw_table(table, side, style) for table in tables]
    rows = _flowed(drawn, style.gap * 3) if flow else [[table] for table in drawn]
    before = [style.gap * (3 if table.heading else 1) for table in tables[:: len(rows[0])]]
    width = max(_row_width(row, style.gap * 3) for row in rows)
    head = [
        *((line, style.title, _INK) for line in _wrapped(title, style.title, width)),
        *((line, style.heading, _SOFT) for line in _wrapped(subtitle, style.heading, width)),
    ]
    foot = [(line, style.small, _SOFT) for text in caption for line in _wrapped(text, style.small, width, 2 * _LINES)]
    heights = [max(table.height for table in row) for row in rows]
    blocks = [sum(_height(font) for _, font, _ in text) for text in (head, foot)]
    between = style.gap * 2
    height = sum(heights) + sum(before[1:]) + sum(block + between for block in blocks if block)
    sheet = Image.new("RGB", (width + 2 * style.margin, height + 2 * style.margin), _PAPER)
    y = style.margin
    for line, font, colour in head:
        _write(sheet, (style.margin, y), line, font, colour)
        y += _height(font)
    y += between if head else 0
    for index, row in enumerate(rows):
        x = style.margin
        y += before[index] if index else 0
        for table in row:
            sheet.paste(table, (x, y))
            x += table.width + style.gap * 3
        y += heights[index]
    y += between
    for line, font, colour in foot:
        _write(sheet, (style.margin, y), line, font, colour)
        y += _height(font)
    return sheet


@dataclass(frozen=True)
class _Style:
    """Fonts, enlarged by `_SCALE`, and distances in pixels.

    They grow with the pictures, because large sheets are viewed from further away.
    """

    title: Font
    heading: Font
    label: Font
    small: Font
    gap: int
    margin: int

    @classmethod
    def of(cls, side: int) -> "_Style":
        unit = min(max(side / 256, 0.75), 2)
        fonts = (_font(round(size * unit)) for size in (30, 20, 17, 15))
        return cls(*fonts, gap=round(12 * unit), margin=round(24 * unit))


def _draw_table(table: Table, side: int, style: _Style) -> Image.Image:
    """Draw one table without margins."""
    sizes = [_fitted(picture.size, side) for row in table.pictures for picture in row]
    tile = max(width for width, _ in sizes), max(height for _, height in sizes)
    count = max(map(len, table.pictures))
    step = (tile[0] + style.gap, tile[1] + style.gap)
    pictures_width = count * step[0] - style.gap

    row_labels = [_wrapped(text, style.label, side) for text in (*table.rows, table.rows_title)]
    *rows, rows_title = row_labels
    label_width = max((_width(line, style.label) for lines in row_labels for line in lines), default=0)
    left = label_width + style.gap if label_width else 0
    heading = _wrapped(table.heading, style.heading, left + pictures_width)
    columns_title = _wrapped(table.columns_title, style.label, pictures_width)
    columns = [_wrapped(text, style.label, tile[0]) for text in table.columns]

    line = _height(style.label)
    label_lines = max((len(lines) for lines in columns), default=0)
    above = len(columns_title) + max(label_lines, len(rows_title))
    top = len(heading) * _height(style.heading) + (style.gap // 2 if heading else 0)
    pictures_top = top + above * line + (style.gap // 2 if above else 0)
    size = (left + pictures_width, pictures_top + len(table.pictures) * step[1] - style.gap)
    image = Image.new("RGB", size, _PAPER)

    for index, text in enumerate(heading):
        _write(image, (0, index * _height(style.heading)), text, style.heading, _INK)
    for index, text in enumerate(columns_title):
        middle = left + (pictures_width - _width(text, style.label)) // 2
        _write(image, (middle, top + index * line), text, style.label, _SOFT)
    bottom = top + above * line
    for index, text in enumerate(rows_title):
        _write(image, (0, bottom - (len(rows_title) - index) * line), text, style.label, _SOFT)
    for column, lines in enumerate(columns):
        for index, text in enumerate(lines):
            middle = left + column * step[0] + (tile[0] - _width(text, style.label)) // 2
            _write(image, (middle, bottom - (len(lines) - index) * line), text, style.label, _INK)
    for row, pictures in enumerate(table.pictures):
        y = pictures_top + row * step[1]
        lines = rows[row] if row < len(rows) else []
        for index, text in enumerate(lines):
            _write(image, (0, y + (tile[1] - len(lines) * line) // 2 + index * line), text, style.label, _INK)
        for column, picture in enumerate(pictures):
            x = left + column * step[0]
            fitted = picture.convert("RGB").resize(_fitted(picture.size, side), Image.Resampling.LANCZOS)
            image.paste(fitted, (x, y))
            edge = (x, y, x + fitted.width - 1, y + fitted.height - 1)
            ImageDraw.Draw(image).rectangle(edge, outline=_LINE)  # so that the edge of a white picture is visible
    return image


def _side(tables: Sequence[Table]) -> int:
    """The longer side of every picture, in pixels."""
    pictures = [picture for table in tables for row in table.pictures for picture in row]
    side = min(max(max(max(picture.size) for picture in pictures), _SMALLEST), _LARGEST)
    most = max(max(len(table.pictures), *map(len, table.pictures)) for table in tables)
    return int(min(side, (_PIXELS / len(pictures)) ** 0.5, _LONGEST / most))


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    factor = side / max(size)
    return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)


def _flowed(tables: Sequence[Image.Image], gap: int) -> list[list[Image.Image]]:
    """Arrange the tables in rows of equal length, close to 3:2 overall."""

    def rows(across: int) -> list[list[Image.Image]]:
        return [list(tables[start : start + across]) for start in range(0, len(tables), across)]

    def distance(across: int) -> float:
        width = max(_row_width(row, gap) for row in rows(across))
        height = sum(max(table.height for table in row) + gap for row in rows(across)) - gap
        return max(width / height / _RATIO, _RATIO / (width / height))

    return rows(min(range(1, len(tables) + 1), key=distance))


def _row_width(row: Sequence[Image.Image], gap: int) -> int:
    return sum(table.width + gap for table in row) - gap


def _wrapped(text: str, font: Font, width: int, most: int = _LINES) -> list[str]:
    """Break the text into lines of at most `width` pixels, between words or within a word that is too long."""
    lines: list[str] = []
    line = ""
    for word in _writable(text).split():
        longer = f"{line} {word}" if line else word
        if _width(longer, font) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while _width(line, font) > width and len(line) > 1 and len(lines) <= most:
            fits = bisect_right(range(1, min(len(line), width)), width, key=lambda n: _width(line[:n], font)) or 1
            lines.append(line[:fits])
            line = line[fits:]
    lines += [line] if line else []
    if len(lines) > most:
        lines[most - 1 :] = [f"{lines[most - 1][:-1]}…"]
    return lines


def _writable(text: str) -> str:
    """The text in characters that the font has: é becomes e, and a character without a substitute becomes a box."""
    plain = unicodedata.normalize("NFKD", text.translate(_STAND_INS))
    return "".join(c for c in plain if not unicodedata.combining(c) and (c.isprintable() or c.isspace()))


def _write(image: Image.Image, at: tuple[int, int], text: str, font: Font, colour: tuple[int, int, int]) -> None:
    """Draw the text large and scale it down; at its own size, advances of whole pixels make words run together."""
    large = Image.new("L", (_width(text, font) * _SCALE, _height(font) * _SCALE))
    ImageDraw.Draw(large).text((0, 0), text, 255, font)
    image.paste(colour, at, large.reduce(_SCALE))


def _width(text: str, font: Font) -> int:
    return math.ceil(font.getlength(text) / _SCALE) + 1


def _height(font: Font) -> int:
    """The distance from one line to the next, in pixels."""
    return round(font.getbbox("Ag")[3] / _SCALE * 1.25)


@cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size * _SCALE)

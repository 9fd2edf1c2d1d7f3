"""Contact sheets: places of the pictures, labels that are drawn and do not overlap, and limited sizes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lorablend.app.pictures.sheet import Table, draw_sheet

COLOURS = [(255, 0, 0), (0, 160, 0), (0, 0, 255), (255, 160, 0), (160, 0, 255), (0, 160, 160)]


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, colour)


def box(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the area that has this colour."""
    ys, xs = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def ink(sheet: Image.Image, left: int, top: int, right: int, bottom: int) -> int:
    """The number of dark pixels in an area."""
    return int((np.asarray(sheet.convert("L"))[max(top, 0) : bottom, max(left, 0) : right] < 128).sum())


def table(**labels: object) -> Table:
    return Table(pictures=[list(map(picture, COLOURS[:3])), list(map(picture, COLOURS[3:]))], **labels)  # pyright: ignore[reportArgumentType]


def test_every_picture_is_in_its_place() -> None:
    sheet = draw_sheet([table()])
    boxes = [box(sheet, colour) for colour in COLOURS]
    assert {(right - left, bottom - top) for left, top, right, bottom in boxes} == {(190, 190)}  # within a thin frame
    assert len({left for left, *_ in boxes}) == 3
    assert [left for left, *_ in boxes[:3]] == [left for left, *_ in boxes[3:]] == sorted({left for left, *_ in boxes})
    assert {top for _, top, *_ in boxes[:3]} == {boxes[0][1]} != {top for _, top, *_ in boxes[3:]} == {boxes[3][1]}


def test_labels_are_beside_their_pictures() -> None:
    bare = box(draw_sheet([table()]), COLOURS[0])
    titles = {"heading": "all", "rows_title": "r", "columns_title": "c"}
    sheet = draw_sheet([table(columns=["a", "b", ""], rows=["one", ""], **titles)])
    boxes = [box(sheet, colour) for colour in COLOURS]
    assert boxes[0][0] > bare[0]
    assert boxes[0][1] > bare[1]
    above = [ink(sheet, left, top - 25, right, top - 2) for left, top, right, _ in boxes[:3]]
    beside = [ink(sheet, 0, top, boxes[0][0] - 2, bottom) for _, top, _, bottom in (boxes[0], boxes[3])]
    assert above[0] > 0 < above[1]
    assert above[2] == 0
    assert beside[0] > 0 == beside[1]


def test_long_labels_stay_in_their_column() -> None:
    long = "a very long label of many words, and one-that-is-longer-than-the-whole-column-is-wide " * 4
    sheet = draw_sheet([table(columns=[long, "b", "c"], rows=["one", long])])
    boxes = [box(sheet, colour) for colour in COLOURS]
    gap = (boxes[0][2] + 1, boxes[1][0] - 1)
    assert ink(sheet, gap[0], 0, gap[1], sheet.height) == 0
    assert ink(sheet, 0, boxes[0][3] + 1, boxes[0][0] - 2, boxes[3][1] - 1) == 0  # between the rows


def test_title_and_caption_are_above_and_below() -> None:
    sheet = draw_sheet([table()], title="title", subtitle="subtitle", caption=["caption", "x" * 2000])
    boxes = [box(sheet, colour) for colour in COLOURS]
    assert ink(sheet, 0, 0, sheet.width, boxes[0][1] - 2) > 0
    assert ink(sheet, 0, boxes[5][3] + 2, sheet.width, sheet.height) > 0
    assert ink(sheet, sheet.width - 10, 0, sheet.width, sheet.height) == 0


def test_what_the_font_lacks_is_written_with_what_it_has() -> None:
    def caption(text: str) -> bytes:
        return draw_sheet([Table(pictures=[[picture((9, 9, 9))]])], caption=[text]).tobytes()

    assert caption("café 2×3 – a\nb\tc\x00") == caption("cafe 2x3 - a b c")
    assert caption("fox") != caption("box")


def test_tables_flow_to_a_pleasant_shape() -> None:
    one = Table(pictures=[[picture(COLOURS[0])]], heading="h")
    below, beside = draw_sheet([one] * 6), draw_sheet([one] * 6, flow=True)
    assert below.height > 4 * below.width
    assert 1 < beside.width / beside.height < 2


@pytest.mark.parametrize(
    ("size", "count", "side"),
    [((64, 64), (1, 1), 192), ((1024, 1024), (1, 2), 512), ((1024, 512), (1, 1), 512), ((512, 64), (10, 10), 489)],
)
def test_pictures_are_neither_too_small_nor_too_large(size: tuple[int, int], count: tuple[int, int], side: int) -> None:
    pictures = [[picture((1, 2, 3), size)] * count[1]] * count[0]
    pictures = [[picture(COLOURS[0], size), *pictures[0][1:]], *pictures[1:]]
    left, top, right, bottom = box(draw_sheet([Table(pictures=pictures)]), COLOURS[0])
    assert (right - left, bottom - top) == (side - 2, round(side * size[1] / size[0]) - 2)


def test_a_long_row_fits_into_a_file() -> None:
    sheet = draw_sheet([Table(pictures=[[picture(COLOURS[0])] * 100], columns=list(map(str, range(100))))])
    assert sheet.width < 15_000


def test_a_white_picture_has_an_end() -> None:
    sheet = np.asarray(draw_sheet([Table(pictures=[[picture((255, 255, 255))]])]))
    assert (sheet != 255).any()

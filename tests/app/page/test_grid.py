"""The tab of grids in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.app.page.browser import choose, opened, reload, set_slider

pytestmark = pytest.mark.slow


def test_a_grid_of_the_board(browser: Browser, address: str, data: Path, tmp_path: Path) -> None:
    """A grid is taken from Create, counted while typing, drawn, downloaded, shown after a reload, and stopped."""
    with opened(browser, address) as page:
        page.get_by_label("Prompt", exact=True).fill("a fox")
        page.get_by_label("Seed", exact=True).first.fill("7")
        set_slider(page, "Steps", "2")
        choose(page, "Add an adapter", "ink")
        set_slider(page, "Weight of ink", "0.8")
        page.get_by_role("tab", name="Grid").click()
        page.get_by_role("button", name="Take prompt, board and settings from Create").click()
        expect(page.get_by_label("Prompt of the grid", exact=True)).to_have_value("a fox")
        page.get_by_text("adapters: ink 0.8").wait_for()
        expect(page.get_by_label("Seed of all")).to_have_value("7")

        # Errors are shown while typing, and by the button.
        choose(page, "Columns sweep", "weight of ink")
        expect(page.get_by_label("Values of the columns")).to_have_attribute("placeholder", "0,0.5,1")
        page.get_by_label("Values of the columns").fill("0, one")
        page.locator("#grid-size").get_by_text('weight "one" is not a finite number').wait_for()
        page.get_by_role("button", name="Draw the grid").click()
        expect(page.get_by_text('weight "one" is not a finite number')).to_have_count(2)
        page.get_by_label("Values of the columns").fill("0, 1")
        choose(page, "Rows sweep", "seed")
        page.get_by_label("Values of the rows").fill("1..3")
        page.locator("#grid-size").get_by_text(re.compile(r"^6 pictures \(2 × 3\)")).wait_for()
        page.get_by_role("button", name="Draw the grid").click()
        page.locator("#grid-stage").get_by_text(re.compile(r"^6 pictures in")).wait_for()
        page.locator("#sheet img").wait_for()
        page.screenshot(path=tmp_path / "grid.png", full_page=True)
        (file,) = (data / "sheets").glob("*.png")
        with page.expect_download() as download:
            page.locator("#sheet").get_by_role("button", name="Download").click()
        assert download.value.path().read_bytes() == file.read_bytes()
        cells = json.loads(Image.open(file).info["lorablend-grid"])["cells"]
        assert [cell["record"]["adapters"][0]["weight"] for cell in cells] == [0, 1] * 3
        assert [cell["record"]["seed"] for cell in cells] == [1, 1, 2, 2, 3, 3]
        assert len(list((data / "pictures").glob("*/*.png"))) == 6

        reload(page)
        page.get_by_role("tab", name="Grid").click()
        expect(page.get_by_label("Values of the rows")).to_have_value("1..3")
        page.locator("#sheet img").wait_for()
        page.locator("#grid-size").get_by_text(re.compile(r"^6 pictures \(2 × 3\), about \d+ s$")).wait_for()

        # Another browser tab sees a long one, and stops it.
        page.get_by_label("Steps of each").fill("100")
        page.get_by_label("Values of the rows").fill("1..20")
        page.get_by_label("Values of the rows").press("Enter")
        page.locator("#grid-stage").get_by_alt_text("Preview").wait_for()
        with opened(browser, address) as second:
            second.get_by_role("tab", name="Grid").click()
            second.locator("#grid-stage").get_by_text(re.compile(r"picture \d+ of 40: weight of ink")).wait_for()
            second.get_by_role("button", name="Stop", exact=True).click()
            second.locator("#grid-stage").get_by_text("stopped", exact=True).wait_for()
        page.locator("#grid-stage").get_by_text("stopped", exact=True).wait_for()
        assert len(list((data / "sheets").glob("*.png"))) == 1

        # The sheet is deleted after a question; its pictures stay.
        drawn = len(list((data / "pictures").glob("*/*.png")))
        page.get_by_role("button", name="Delete this sheet").click()
        page.get_by_text("Delete this sheet? It cannot be brought back.").locator("visible=true").wait_for()
        page.screenshot(path=tmp_path / "delete.png", full_page=True)
        page.get_by_role("button", name="Keep it").locator("visible=true").click()
        expect(page.get_by_text("It cannot be brought back.").locator("visible=true")).to_have_count(0)
        assert file.exists()
        page.get_by_role("button", name="Delete this sheet").click()
        page.get_by_role("button", name="Delete it for good").locator("visible=true").click()
        expect(page.locator("#sheet")).to_be_hidden()
        expect(page.get_by_role("button", name="Delete this sheet")).to_be_hidden()
        assert not file.exists()
        assert len(list((data / "pictures").glob("*/*.png"))) == drawn


def test_a_phone(browser: Browser, address: str, tmp_path: Path) -> None:
    with opened(browser, address, width=390, height=844) as page:
        if not page.get_by_role("tab", name="Grid", exact=True).is_visible():
            page.get_by_role("button", name="More tabs").or_(page.locator(".overflow-menu > button")).first.click()
        page.get_by_role("tab", name="Grid").or_(page.get_by_role("button", name="Grid", exact=True)).first.click()
        page.get_by_role("button", name="Draw the grid").wait_for()
        page.screenshot(path=tmp_path / "grid phone.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390

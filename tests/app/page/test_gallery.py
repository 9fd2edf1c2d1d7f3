"""The gallery in a real browser: pages, search, marks, comparison, zip, and reading other programs' files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser, Locator, Page, expect

from tests.app.page.browser import choose, opened, unfold

pytestmark = pytest.mark.slow

COUNT = 27
ON_PAGE = 24


def write(path: Path, number: int) -> None:
    """A picture as A1111 saves it."""
    text = PngInfo()
    prompt = f"{'a fox' if number % 2 else 'a hen'} number {number} <lora:{'ink' if number < 3 else 'lost'}:0.5>"
    text.add_text("parameters", f"{prompt}\nSteps: 9, Sampler: Euler, CFG scale: 3, Seed: {number}, Size: 64x64")
    Image.new("RGB", (64, 64), (number * 9, 80, 200)).save(path, pnginfo=text)


@pytest.fixture(scope="module")
def folder(data: Path) -> Path:
    """Pictures that another program saved; the last ones are the newest."""
    day = data / "pictures" / "2026-01-02"
    day.mkdir(parents=True)
    for number in range(COUNT):
        write(day / f"{number:03}.png", number)
    return day


@pytest.fixture(scope="module")
def address(folder: Path, address: str) -> str:
    """With all pictures in the folder."""
    return address


@pytest.fixture
def page(page: Page) -> Page:
    """With the gallery open."""
    page.get_by_role("tab", name="Gallery").click()
    thumbnail(page, 1, ON_PAGE).wait_for()
    return page


def thumbnail(page: Page, number: int, count: int) -> Locator:
    return page.locator("#grid .grid-wrap").get_by_role("button", name=f"Thumbnail {number} of {count}", exact=True)


def look_at(page: Page, number: int, count: int, prompt: str) -> None:
    """Choose a picture, and close Gradio's large view."""
    thumbnail(page, number, count).click()
    page.locator("#details p.prompt").get_by_text(prompt, exact=True).wait_for()
    page.locator("#grid").get_by_role("button", name="Close").click()


def test_pages_and_a_zip_of_one(page: Page, folder: Path, tmp_path: Path) -> None:
    page.get_by_role("button", name="Older").click()
    thumbnail(page, 1, COUNT - ON_PAGE).wait_for()
    expect(page.get_by_role("button", name="Older")).to_be_disabled()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download this page as zip").click()
    download.value.save_as(tmp_path / "page.zip")
    with zipfile.ZipFile(tmp_path / "page.zip") as archive:
        assert archive.namelist() == [f"{folder.name}/{number:03}.png" for number in (2, 1, 0)]
        assert archive.read(f"{folder.name}/001.png") == (folder / "001.png").read_bytes()
    page.get_by_role("button", name="Newer").click()
    thumbnail(page, 1, ON_PAGE).wait_for()
    expect(page.get_by_role("button", name="Newer")).to_be_disabled()

    # Another page has other pictures.
    with page.expect_download() as download:
        page.get_by_role("link", name="Download this page as zip").click()
    download.value.save_as(tmp_path / "page.zip")
    with zipfile.ZipFile(tmp_path / "page.zip") as archive:
        assert archive.namelist() == [f"{folder.name}/{number:03}.png" for number in reversed(range(3, COUNT))]


def test_search_and_favourites(page: Page) -> None:
    page.get_by_label("Words of the prompt").fill("hen number")
    thumbnail(page, 1, 14).wait_for()
    choose(page, "Adapter", "ink", within="#search")
    thumbnail(page, 1, 2).wait_for()
    look_at(page, 2, 2, "a hen number 0")
    page.locator("#details").get_by_role("button", name="Favourite", exact=True).click()
    page.locator("#details").get_by_role("button", name="Remove favourite").wait_for()
    page.get_by_label("Words of the prompt").fill("")
    choose(page, "Adapter", "any", within="#search")
    thumbnail(page, 1, ON_PAGE).wait_for()
    page.get_by_label("Favourites only").locator("visible=true").check()
    thumbnail(page, 1, 1).wait_for()
    page.get_by_label("Favourites only").locator("visible=true").uncheck()
    thumbnail(page, 1, ON_PAGE).wait_for()
    page.get_by_label("Seed", exact=True).locator("visible=true").fill("9")
    page.get_by_label("Seed", exact=True).locator("visible=true").press("Enter")
    thumbnail(page, 1, 1).wait_for()
    look_at(page, 1, 1, "a fox number 9")
    page.get_by_label("Seed", exact=True).locator("visible=true").fill("nine")
    page.get_by_label("Seed", exact=True).locator("visible=true").press("Enter")
    page.get_by_text('seed is "nine"; give a whole number').wait_for()
    page.get_by_label("Seed", exact=True).locator("visible=true").fill("9" * 20)
    page.get_by_label("Seed", exact=True).locator("visible=true").press("Enter")
    page.get_by_text(f'seed is "{"9" * 20}"; give a whole number of at most').wait_for()


def test_the_last_choice_counts(page: Page) -> None:
    """The picture that is shown, and that would be deleted, is the one chosen last, however fast that was."""
    page.evaluate("[...document.querySelectorAll('#grid .grid-wrap button')].slice(0, 4).forEach(one => one.click())")
    page.locator("#details p.prompt").get_by_text(f"a fox number {COUNT - 4}", exact=True).wait_for()


def test_compare_two(page: Page, tmp_path: Path) -> None:
    compare = page.locator("#details").get_by_role("button", name="Compare", exact=True)
    look_at(page, 1, ON_PAGE, "a hen number 26")
    compare.click()
    page.get_by_text("Kept; choose another picture and press Compare again").wait_for()
    look_at(page, 3, ON_PAGE, "a hen number 24")
    compare.click()
    images = page.locator("#pair img")
    expect(images).to_have_count(2)
    sources = [images.nth(i).get_attribute("src") or "" for i in range(2)]
    assert {source.rpartition("/")[2] for source in sources} == {"026.png", "024.png"}
    page.screenshot(path=tmp_path / "compare.png", full_page=True)


def test_a_picture_that_is_deleted_meanwhile(page: Page, browser: Browser, address: str, tmp_path: Path) -> None:
    """Deleting the picture kept for a comparison and the last one of a page; the bin asks before it is emptied."""
    details = page.locator("#details")
    page.get_by_role("button", name="Older").click()
    thumbnail(page, 1, COUNT - ON_PAGE).wait_for()
    look_at(page, 1, COUNT - ON_PAGE, "a hen number 2")
    details.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("Kept; choose another picture and press Compare again").wait_for()
    with opened(browser, address) as other:
        other.get_by_role("tab", name="Gallery").click()
        look_at(other, ON_PAGE, ON_PAGE, "a fox number 3")  # the last one of its page
        other.locator("#details").get_by_role("button", name="Delete", exact=True).click()
        other.get_by_text("Choose a picture to see its settings.").wait_for()
        look_at(other, ON_PAGE, ON_PAGE, "a hen number 2")
        other.locator("#details").get_by_role("button", name="Delete", exact=True).click()
        thumbnail(other, ON_PAGE, ON_PAGE).wait_for()
    expect(page.get_by_text("Kept; choose another picture and press Compare again")).to_have_count(0)
    look_at(page, 2, COUNT - ON_PAGE, "a fox number 1")
    details.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("Kept; choose another picture and press Compare again").wait_for()
    details.get_by_role("button", name="Delete", exact=True).click()
    thumbnail(page, 1, ON_PAGE).wait_for()  # the first page, because the beginning of this one is unknown now
    look_at(page, 1, ON_PAGE, "a hen number 26")

    details.get_by_role("button", name="Bin").click()
    details.get_by_role("button", name="Empty the bin").click()
    details.get_by_text("Delete all 3 pictures in the bin? They cannot be brought back.").wait_for()
    page.screenshot(path=tmp_path / "bin.png", full_page=True)
    details.get_by_role("button", name="Keep them").click()
    expect(details.get_by_role("button", name="Delete them for good")).to_have_count(0)
    details.get_by_role("button", name="Restore").click()
    page.get_by_role("button", name="Older").click()
    thumbnail(page, 1, COUNT - ON_PAGE).wait_for()
    details.get_by_role("button", name="Empty the bin").click()
    page.get_by_text("the bin is empty").wait_for()


def test_a_picture_of_another_program(page: Page, tmp_path: Path) -> None:
    write(tmp_path / "theirs.png", 2)
    unfold(page, "Drop a picture of any program")
    page.locator("#details input[type=file]").set_input_files(tmp_path / "theirs.png")
    page.locator("#details").get_by_text("Everything that it needs is here.").wait_for()
    page.locator("#details").get_by_text("A picture of AUTOMATIC1111 (or its form)").wait_for()
    page.get_by_role("button", name="Use its settings").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a hen number 2")
    expect(page.get_by_label("number input for Weight of ink")).to_have_value("0.5")
    expect(page.get_by_label("number input for Steps", exact=True)).to_have_value("9")

"""The tab of training in a real browser: pictures sent, looked through with the keyboard, trained on, drawn with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from lorablend.app.pictures.png import open_picture
from lorablend.app.work.sets import Sets
from lorablend.demo.data_set import draw_data_set
from tests.app.page.browser import PATIENCE, choose, opened, running, set_slider, unfold

TRAINED = 4 * PATIENCE  # a process of its own that loads torch, trains, draws and checks, on a busy machine


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Ten pictures in the style knit, with captions."""
    draw_data_set(tmp_path / "drawn", 10, style="knit", size=96)
    return tmp_path / "drawn"


def go_to_train(page: Page) -> None:
    page.get_by_role("tab", name="Train", exact=True).click()
    page.locator("#review").wait_for()


def send(page: Page, name: str, files: list[Path]) -> None:
    box = page.get_by_label("Data set (choose one, or type a new name)")
    box.fill(name)
    box.press("Enter")
    page.locator("#train-files input[type=file]").set_input_files(files)


def seen(page: Page, count: str, file: str) -> None:
    """The counter, and the picture that is looked at, which has arrived."""
    expect(page.locator("#review-count")).to_contain_text(count)
    expect(page.locator("#review-count")).to_contain_text(file)
    picture = page.locator("#review-picture img:not([hidden])")
    expect(picture).to_have_attribute("alt", re.compile(f"^{re.escape(file)}: "))
    expect(picture).to_have_js_property("naturalWidth", 96)


def fill(page: Page, **boxes: str) -> None:
    for label, text in boxes.items():
        box = page.get_by_label(label.replace("_", " "), exact=True).filter(visible=True).first
        box.fill(text)
        box.press("Tab")


def test_the_keys(browser: Browser, drawn: Path, tmp_path: Path) -> None:
    """Each key does what it says, and nothing while somebody types."""
    (tmp_path / "library").mkdir()
    sets = Sets(tmp_path / "data" / "sets")
    with running(Path("demo"), tmp_path / "library", tmp_path / "data") as address, opened(browser, address) as page:
        go_to_train(page)
        page.get_by_role("button", name="Remove this data set").click()
        page.get_by_text("no data set is chosen; choose one", exact=True).wait_for()
        (tmp_path / "broken.png").write_text("no picture")
        send(page, "knit", [tmp_path / "broken.png"])
        page.get_by_text("broken.png is not a picture, or damaged").wait_for()
        expect(page.locator("#train-files")).to_contain_text("Drop File Here")  # else it is sent again with the others
        send(page, "knit", sorted(drawn.glob("00[0-3].*")))
        seen(page, "1 of 4, 0 dropped", "000.png")
        page.get_by_text("a folder of pictures; 4 pictures; captions: 4 from .txt files").wait_for()
        page.locator("#review-picture").click()  # out of the box with the set's name
        page.keyboard.press("k")
        seen(page, "2 of 4, 0 dropped", "001.png")
        page.keyboard.press("ArrowRight")
        seen(page, "3 of 4, 0 dropped", "002.png")
        page.keyboard.press("ArrowLeft")
        seen(page, "2 of 4, 0 dropped", "001.png")
        page.keyboard.press("d")
        seen(page, "2 of 3, 1 dropped", "002.png")
        page.keyboard.press("u")
        seen(page, "2 of 4, 0 dropped", "001.png")

        caption = page.get_by_label("Caption (E edits it, Escape leaves it)")
        page.keyboard.press("e")
        expect(caption).to_be_focused()
        expect(caption).to_have_value(sets.pictures("knit")[1].caption)  # the e is no part of it
        caption.fill("")
        page.keyboard.type("duke")
        seen(page, "2 of 4, 0 dropped", "001.png")
        page.keyboard.press("Escape")
        expect(caption).not_to_be_focused()
        page.keyboard.press("k")
        seen(page, "3 of 4, 0 dropped", "002.png")
        assert [one.caption for one in sets.pictures("knit")][1] == "duke"
        page.get_by_label("Name of the new adapter").focus()
        page.keyboard.type("duke")
        expect(page.get_by_label("Name of the new adapter")).to_have_value("duke")
        seen(page, "3 of 4, 0 dropped", "002.png")
        page.get_by_label("Keys K, D, U, E and arrows").uncheck()
        page.keyboard.press("d")
        page.get_by_role("button", name="Previous").click()
        seen(page, "2 of 4, 0 dropped", "001.png")  # the key did nothing, the button did

        unfold(page, "All pictures at once")
        sheet = page.get_by_alt_text("All pictures of knit with their captions, sheet 1")
        sheet.scroll_into_view_if_needed()
        expect(sheet).not_to_have_js_property("naturalWidth", 0)
        page.screenshot(path=tmp_path / "review.png", full_page=True)

        with opened(browser, address) as second:  # the same set, the same picture
            go_to_train(second)
            seen(second, "2 of 4, 0 dropped", "001.png")
            expect(second.get_by_label("Caption (E edits it, Escape leaves it)")).to_have_value("duke")
        bad = tmp_path / "bad.png"
        bad.write_text("<html>")
        page.locator("#train-files input[type=file]").set_input_files([bad])
        page.get_by_text("bad.png is not a picture, or damaged; save it again as PNG or JPEG").wait_for()
        assert sets.names() == ["knit"]
        fill(page, Name_of_the_new_adapter="")
        page.get_by_role("button", name="Start training").click()
        page.get_by_text("the new adapter has no name; type one").wait_for()
        fill(page, Name_of_the_new_adapter="../knit")
        page.get_by_role("button", name="Check", exact=True).click()
        page.get_by_text("'../knit' cannot be an adapter's name").wait_for()

        page.get_by_role("button", name="Remove this data set").click()
        page.get_by_text("Remove knit with its 4 pictures? It cannot be brought back.").wait_for()
        page.screenshot(path=tmp_path / "remove.png")
        page.get_by_role("button", name="Keep it").locator("visible=true").click()
        expect(page.get_by_text("It cannot be brought back.").locator("visible=true")).to_have_count(0)
        assert sets.names() == ["knit"]
        page.get_by_role("button", name="Remove this data set").click()
        page.get_by_role("button", name="Remove it for good").locator("visible=true").click()
        expect(page.locator("#review-picture")).to_contain_text("Choose a data set, or send pictures for a new one.")
        assert sets.names() == []


@pytest.mark.slow
def test_from_pictures_to_an_adapter(browser: Browser, drawn: Path, tmp_path: Path) -> None:
    """Ten pictures, one of them dropped, one with another caption; twenty steps, stopped and gone on with; drawn."""
    library, data = tmp_path / "library", tmp_path / "data"
    library.mkdir()
    sets = Sets(data / "sets")
    with running(Path("demo"), library, data) as address, opened(browser, address) as page:
        go_to_train(page)
        send(page, "knit", sorted(drawn.iterdir()))
        seen(page, "1 of 10, 0 dropped", "000.png")
        page.locator("#review-picture").click()
        page.keyboard.press("k")
        seen(page, "2 of 10, 0 dropped", "001.png")
        page.keyboard.press("d")
        seen(page, "2 of 9, 1 dropped", "002.png")
        page.keyboard.press("e")
        page.get_by_label("Caption (E edits it, Escape leaves it)").fill("a red fox, in knit style")
        page.keyboard.press("Escape")
        page.keyboard.press("k")
        seen(page, "3 of 9, 1 dropped", "003.png")
        assert len(sets.pictures("knit")) == 9
        assert sets.pictures("knit")[1].caption == "a red fox, in knit style"

        fill(page, Name_of_the_new_adapter="knit", Trigger_word="knit style", Steps="20", Rank="4")
        unfold(page, "More settings")
        page.get_by_label("Resolution (pixels)").fill("64")
        page.get_by_label("Pictures at once").fill("1")
        page.get_by_label("Checkpoints", exact=True).fill("2")
        page.get_by_role("button", name="Check", exact=True).click()
        page.get_by_text("training: 20 steps").wait_for()
        page.screenshot(path=tmp_path / "checked.png", full_page=True)
        page.get_by_role("button", name="Start training").click()
        page.get_by_text(re.compile(r"knit: step \d+ of 20 · loss 0\.\d+ · \d+ s")).wait_for(timeout=TRAINED)
        page.screenshot(path=tmp_path / "training.png", full_page=True)
        with opened(browser, address) as second:  # another tab sees it, and stops it
            go_to_train(second)
            second.get_by_text(re.compile(r"knit: (step \d+ of 20|the last step is done)")).wait_for()
            second.locator("#train-stop").click()
            second.get_by_text("knit was stopped").wait_for(timeout=TRAINED)
        resume = page.get_by_role("button", name=re.compile(r"Resume after step \d+"))
        resume.click()
        page.get_by_text(
            re.compile(r"knit is in the library: 20 steps in .*; its trigger word is knit style")
        ).wait_for(timeout=TRAINED)
        expect(page.get_by_alt_text("Samples of knit after step 20: left without it, right with it")).to_be_visible()
        page.locator("#losses svg, #losses canvas").first.wait_for()
        page.screenshot(path=tmp_path / "trained.png", full_page=True)
        page.get_by_role("button", name="Put it on the pedal board").click()
        page.get_by_text("knit is on the board").wait_for()

        # What the training left is removed, once it is sure; the adapter stays.
        unfold(page, "All trainings")
        choose(page, "Training", "knit")
        page.get_by_role("button", name="Remove this training").click()
        page.get_by_text(
            "Remove the training knit: checkpoints, samples and log? They cannot be brought back."
        ).wait_for()
        page.screenshot(path=tmp_path / "remove.png", full_page=True)
        page.get_by_role("button", name="Remove the training for good").click()
        expect(page.get_by_alt_text(re.compile("^Samples of knit"))).to_have_count(0)
        assert list((data / "trainings").glob("knit*")) == []

        page.get_by_role("tab", name="Create").click()
        page.locator("#board").get_by_label("knit", exact=True).wait_for()
        page.get_by_label("Prompt", exact=True).fill("a fox, knit style")
        page.get_by_label("Seed", exact=True).first.fill("7")
        set_slider(page, "Steps", "2")
        for count in (1, 2):
            page.get_by_role("button", name="Draw", exact=True).click()
            expect(page.get_by_role("button", name="Stop").first).to_be_enabled()
            expect(page.get_by_role("button", name="Stop").first).to_be_disabled()
            files = list((data / "pictures").glob("*/*.png"))
            assert len(files) == count
            page.locator("#board").get_by_label("knit", exact=True).uncheck()
        assert len({open_picture(path).tobytes() for path in files}) == 2

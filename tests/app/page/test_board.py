"""The pedal board in the browser: a user in a hurry on a busy machine, and names and words that mean harm."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.adapter_files import random_factors, write_kohya
from tests.app.page.board_walk import busy, hurry
from tests.app.page.browser import choose, opened, set_slider

NAMES = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "oak")
HARMFUL = "<img src=x onerror=document.title=1>"
_MODULE = ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q")


@pytest.fixture(scope="module")
def adapters(lora_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ink, neon glow, eight trees, and one with a harmful name and trigger word."""
    folder = shutil.copytree(lora_dir, tmp_path_factory.mktemp("page") / "adapters")
    for name in NAMES:
        shutil.copyfile(folder / "ink.safetensors", folder / f"{name}.safetensors")
    words = {"modelspec.trigger_phrase": HARMFUL}
    write_kohya(folder / f"{HARMFUL}.safetensors", random_factors({_MODULE: (64, 64)}, size=0.5), metadata=words)
    return folder


@pytest.mark.slow
def test_hurried_edits_on_a_busy_machine(browser: Browser, address: str, data: Path) -> None:
    """All of them arrive, in order: removals one after the other, moves, weights, texts, without any HTTP error."""
    with opened(browser, address) as page, busy():
        for seed in range(3):
            hurry(page, NAMES, data / "styles", seed)


def test_names_and_words_are_text(page: Page) -> None:
    choose(page, "Add an adapter", HARMFUL)
    board = page.locator("#board")
    expect(board.get_by_label(HARMFUL, exact=True)).to_be_checked()
    word = board.locator(".words").get_by_role("button", name=HARMFUL, exact=True)
    word.click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(HARMFUL)
    word.click()
    expect(board.get_by_role("status")).to_be_hidden()  # in angle brackets, which count as a tag
    expect(board.locator("img")).to_have_count(0)
    assert page.title() == "lorablend"


def test_the_keyboard(page: Page) -> None:
    """Removing leaves the focus on the next pedal; the weight is changed by arrow keys, in steps that divide it."""
    for name in ("ash", "birch", "cedar"):
        choose(page, "Add an adapter", name)
    board = page.locator("#board")
    board.get_by_role("button", name="Remove birch").focus()
    page.keyboard.press("Enter")
    expect(board.get_by_label("cedar", exact=True)).to_be_focused()
    page.keyboard.press("Space")
    expect(board.get_by_label("cedar", exact=True)).not_to_be_checked()
    board.get_by_role("button", name="Remove cedar").focus()
    page.keyboard.press("Enter")
    expect(board.get_by_label("ash", exact=True)).to_be_focused()

    number = page.get_by_label("number input for Weight of ash", exact=True)
    slider = page.get_by_label("range slider for Weight of ash", exact=True)
    for text, value, after in (("0.8", "0.8", "0.85"), ("0.72", "0.72", "0.73"), ("5", "2", "2"), ("", "2", "2")):
        set_slider(page, "Weight of ash", text)
        expect(number).to_have_value(value)
        slider.focus()
        page.keyboard.press("ArrowRight")
        expect(number).to_have_value(after)
    page.get_by_role("button", name="Reset the weight of ash").click()
    expect(number).to_have_value("1")

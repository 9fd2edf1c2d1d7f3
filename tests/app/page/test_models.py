"""The tab of models and devices in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from lorablend.engine import ModelFolder
from tests.app.page.browser import choose, set_slider, unfold


@pytest.mark.slow
def test_bake_the_board_and_draw_with_it(page: Page, sdxl_model: Path, data: Path, tmp_path: Path) -> None:
    """Bake, draw, and remove the model again; errors are one line."""
    page.get_by_label("Prompt", exact=True).fill("a fox")
    choose(page, "Add an adapter", "ink")
    set_slider(page, "Weight of ink", "0.8")
    set_slider(page, "Steps", "2")
    page.get_by_role("tab", name="Models and devices").click()
    page.locator("#models").get_by_text(sdxl_model.name).wait_for()
    page.locator("#models").get_by_text(re.compile(r"MB used, [\d.]+ [GM]B free")).wait_for()
    page.get_by_role("button", name="Bake", exact=True).click()
    page.get_by_text("no board was taken; press the button above").wait_for()
    page.get_by_role("button", name="Compress", exact=True).click()
    page.get_by_text("the new model has no name; give it one").wait_for()
    page.get_by_role("button", name="Take the board from Create").click()
    page.get_by_text("ink 0.8", exact=True).wait_for()
    page.get_by_label("Name of the baked model").fill(sdxl_model.name)
    page.get_by_role("button", name="Bake", exact=True).click()
    page.get_by_text(f"there is a model {sdxl_model.name} already").wait_for()
    page.get_by_label("Name of the baked model").fill("inked")
    page.get_by_label("Name of the baked model").press("Enter")
    page.locator("#model-stage").get_by_text("inked is ready").wait_for()
    assert ModelFolder(data / "models" / "inked").family == "sdxl"

    # A source that is a path is refused.
    source = page.get_by_label("Hugging Face id (owner/name), or a name in the folder sources")
    source.fill("/etc")
    page.get_by_label("Name of the new model").fill("new")
    page.get_by_role("button", name="Convert", exact=True).click()
    page.get_by_text("/etc is not a Hugging Face id (owner/name) or a source on the server").wait_for()

    # Both tabs choose the same model, and the board keeps its knobs.
    page.get_by_role("tab", name="Create").click()
    unfold(page, "Scheduler, format, model")
    choose(page, "Model", "inked", within="#knobs")
    expect(page.get_by_label("number input for Weight of ink")).to_have_value("0.8")
    page.get_by_role("tab", name="Models and devices").click()
    expect(page.get_by_role("radio", name="inked", exact=True)).to_be_checked()
    page.get_by_role("radio", name=sdxl_model.name, exact=True).check()
    page.get_by_text("with ink 0.8").wait_for()
    page.get_by_role("radio", name="inked", exact=True).check()
    page.locator("dd").get_by_text("inked", exact=True).wait_for()
    page.screenshot(path=tmp_path / "models.png", full_page=True)
    page.get_by_role("tab", name="Create").click()
    page.get_by_role("button", name="Draw", exact=True).click()
    page.get_by_text(re.compile(r"^1 picture in")).wait_for()
    expect(page.get_by_label("Settings of the picture")).to_have_value(re.compile("Model: inked"))

    page.get_by_role("tab", name="Models and devices").click()
    choose(page, "Remove a model made here", "inked")
    page.get_by_role("button", name="Remove", exact=True).click()
    page.get_by_text(re.compile(r"Remove inked and free [\d.]+ MB\? It cannot be brought back\.")).wait_for()
    assert (data / "models" / "inked").is_dir()
    page.get_by_role("button", name="Remove it for good").click()
    expect(page.get_by_role("radio", name="inked", exact=True)).to_have_count(0)
    assert not (data / "models" / "inked").exists()

    # Its picture is drawn again with another model.
    page.get_by_role("tab", name="Create").click()
    page.get_by_label("Prompt", exact=True).fill("two foxes")
    page.get_by_text(re.compile(r"^\d+ of 75 tokens$")).wait_for()
    page.get_by_role("button", name="Use these settings").first.click()
    page.get_by_text(f"the model inked is not here; {sdxl_model.name} is used").wait_for()
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_label("Settings of the picture")).to_have_value(re.compile(f"Model: {sdxl_model.name}"))

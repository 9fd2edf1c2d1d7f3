"""The tab of the library, and the names of adapters in the prompt, in a real browser."""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from lorablend.app.library.library import Library
from tests.adapter_files import kohya_key, random_factors, write_kohya, write_tensors
from tests.app.file_server import serving
from tests.app.library.library_files import PNG
from tests.app.page.browser import choose, opened, reload, running, unfold

_MODULE = ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q")
_MORE = 70  # adapters in addition to ink and neon glow, more than are shown at first
SEARCH = "Search names, trigger words, tags, hashes"


@pytest.fixture(scope="module")
def folder(adapters: Path) -> Path:
    """A plain folder, as users have: ink with a picture, neon glow, one for another model, and many in a subfolder,
    the last of them a DoRA."""
    folder = adapters
    (folder / "ink.preview.png").write_bytes(PNG)
    old = {("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"): (320, 768)}
    write_kohya(folder / "old.safetensors", random_factors(old), base="sd15")
    (folder / "styles").mkdir()
    write_kohya(folder / "styles" / "s00.safetensors", random_factors({_MODULE: (64, 64)}, size=0.5))
    for number in range(1, _MORE):
        shutil.copyfile(folder / "styles" / "s00.safetensors", folder / "styles" / f"s{number:02}.safetensors")
    dora = {f"{kohya_key(_MODULE)}.dora_scale": ("F32", np.full((64, 1), 2.0, dtype=np.float32))}
    for module, factors in random_factors({_MODULE: (64, 64)}, size=0.5).items():
        dora |= {f"{kohya_key(module)}.lora_down.weight": ("F32", factors.down)}
        dora |= {f"{kohya_key(module)}.lora_up.weight": ("F32", factors.up)}
    write_tensors(folder / "styles" / "s69.safetensors", dora)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path, address: str) -> str:
    """With all files in the folder."""
    return address


def go_to_adapters(page: Page) -> None:
    page.locator("#board .empty, #board .pedal").first.wait_for()  # also after a reload
    tab = page.get_by_role("tab", name="Adapters").locator("visible=true")
    if tab.count():
        tab.click()
    else:
        page.locator("#tabs .overflow-menu > button").click()
        page.locator("#tabs .overflow-dropdown").get_by_role("button", name="Adapters", exact=True).click()
    page.get_by_label(SEARCH).wait_for()


def card(page: Page, name: str) -> Locator:
    return page.locator(f'#cards button[data-name="{name}"]')


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:160]}" for one in found if one["impact"] in ("serious", "critical")
    ]


def shot(page: Page, folder: Path, name: str) -> None:
    page.screenshot(path=folder / f"{name}.png")


@pytest.mark.parametrize(("width", "dark"), [(1360, False), (390, True)])
def test_cards_heat_map_and_completion(browser: Browser, address: str, tmp_path: Path, width: int, dark: bool) -> None:
    """The cards on a screen and on a phone; axe finds nothing serious."""
    with opened(browser, address, width=width, height=900, dark=dark) as page:
        prompt = page.get_by_label("Prompt", exact=True)
        prompt.fill("a fox ")
        prompt.press("End")
        page.keyboard.type("<lora:s")
        expect(page.get_by_role("listbox", name="Adapters").get_by_role("option")).to_have_count(8)
        page.get_by_text("8 of 70 adapters; type more to find the others").wait_for()
        shot(page, tmp_path, "completion")
        findings = serious(page)

        go_to_adapters(page)
        card(page, "ink").click()
        page.locator("#facts").get_by_text("modules, rank").first.wait_for()
        expect(card(page, "ink").locator("img")).not_to_have_js_property("naturalWidth", 0)
        page.get_by_text("60 of 73 adapters; 13 more").wait_for()
        shot(page, tmp_path, "cards")
        unfold(page, "Compare with other adapters")
        box = page.get_by_label("Other adapters for the same model", exact=True)
        for name in ("neon glow", "styles/s00"):
            box.click()
            page.get_by_role("option", name=name, exact=True).click()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Compare", exact=True).locator("visible=true").click()
        heat = page.get_by_alt_text("Heat map of ink, neon glow, s00")
        heat.wait_for()
        # One more, whose change can only be computed with the model's weights.
        expect(page.get_by_label("Relative to the weights")).not_to_be_checked()
        box.click()
        page.get_by_role("option", name="styles/s69", exact=True).click()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Compare", exact=True).locator("visible=true").click()
        heat = page.get_by_alt_text("Heat map of ink, neon glow, s00, s69")
        heat.wait_for()
        expect(page.get_by_label("Relative to the weights")).to_be_checked()
        expect(heat).not_to_have_js_property("naturalWidth", 0)
        heat.scroll_into_view_if_needed()
        page.screenshot(path=tmp_path / "heat map.png", full_page=True)
        findings += serious(page)
        assert not findings, findings
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_completion_by_keyboard_and_mouse(browser: Browser, address: str, folder: Path) -> None:
    with opened(browser, address) as page:
        prompt = page.get_by_label("Prompt", exact=True)
        options = page.get_by_role("listbox", name="Adapters").get_by_role("option")
        prompt.fill("a fox, tall grass")
        prompt.focus()
        page.keyboard.press("End")
        for _ in ", tall grass":
            page.keyboard.press("ArrowLeft")
        page.keyboard.type(" <lora:N")
        expect(options).to_have_text(["neon glow", "ink"])  # the one that begins with it comes first
        expect(prompt).to_have_attribute("aria-activedescendant", "completion-0")
        page.keyboard.press("ArrowDown")
        expect(prompt).to_have_attribute("aria-activedescendant", "completion-1")
        expect(options.nth(1)).to_have_attribute("aria-selected", "true")
        page.keyboard.press("Escape")
        expect(options).to_have_count(0)
        expect(prompt).to_be_focused()
        page.keyboard.type("e")
        expect(options).to_have_text(["neon glow"])
        page.keyboard.press("Enter")
        expect(prompt).to_have_value("a fox <lora:neon glow:1>, tall grass")
        page.keyboard.press("Control+z")
        expect(prompt).to_have_value("a fox <lora:Ne, tall grass")
        page.keyboard.press("Control+y")
        page.keyboard.type("!")  # the caret is after the tag
        expect(prompt).to_have_value("a fox <lora:neon glow:1>!, tall grass")

        # An adapter that was added meanwhile; in a tag with a weight, only the name is replaced.
        shutil.copyfile(folder / "ink.safetensors", folder / "brand new.safetensors")
        try:
            prompt.fill("")
            page.keyboard.type("<lora:brand")
            options.get_by_text("brand new").click()
        finally:
            (folder / "brand new.safetensors").unlink()
        expect(prompt).to_have_value("<lora:brand new:1>")
        expect(prompt).to_be_focused()
        prompt.fill("<lora::0.4> a fox")
        page.keyboard.press("Home")
        for _ in "<lora:":
            page.keyboard.press("ArrowRight")
        page.keyboard.type("in")
        page.get_by_role("option", name="ink", exact=True).wait_for()
        page.keyboard.press("Tab")
        expect(prompt).to_have_value("<lora:ink:0.4> a fox")
        page.keyboard.type("\n<lora:nothing like this")
        expect(options).to_have_count(0)
        page.keyboard.press("Enter")
        expect(prompt).to_have_value("<lora:ink:0.4>\n<lora:nothing like this\n a fox")


def test_a_download_is_a_job(browser: Browser, address: str, folder: Path, tmp_path: Path) -> None:
    """A second browser tab sees a download and stops it; requested again, it continues. No token is shown."""
    far = write_kohya(tmp_path / "far.safetensors", random_factors({_MODULE: (640, 640)}, rank=256))
    files, held = {"/far.safetensors": far.read_bytes()}, threading.Event()
    with serving(files=files, held=held, drop_after=600_000) as server, opened(browser, address) as page:
        go_to_adapters(page)
        box, stage = page.get_by_label("Or a web address, or hf:"), page.locator("#add-stage")
        unfold(page, "Add to the library")
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_text("no file or address is given; choose a file, or enter https://… or hf:owner/repo").wait_for()
        box.fill("/etc/passwd")
        box.press("Enter")
        page.get_by_text('"/etc/passwd" is not an address; give a file, https://…, or hf:owner/repo').wait_for()
        box.fill(f"{server.url}/far.safetensors?token=secret")
        page.get_by_label("Name (if it should differ from the file's)").fill("from afar")
        page.get_by_role("button", name="Add", exact=True).click()
        expect(stage).to_contain_text("0.6 of 1.3 MB")
        expect(box).to_have_value("")
        with opened(browser, address) as second:
            go_to_adapters(second)
            unfold(second, "Add to the library")
            expect(second.locator("#add-stage")).to_contain_text(f"{server.url}/far.safetensors")
            expect(second.locator("#add-stage")).not_to_contain_text("secret")
            second.screenshot(path=tmp_path / "download.png", full_page=True)
            second.get_by_role("button", name="Stop the download").click()
            expect(second.get_by_role("button", name="Stop the download")).to_be_disabled()
            held.set()
            expect(second.locator("#add-stage")).to_have_text("stopped")
        expect(stage).to_have_text("stopped")
        assert not (folder / "from afar.safetensors").exists()
        box.fill(f"{server.url}/far.safetensors?token=secret")
        page.get_by_label("Name (if it should differ from the file's)").fill("from afar")
        page.get_by_role("button", name="Add", exact=True).click()
        expect(stage).to_have_text("from afar is in the library")
        card(page, "from afar").wait_for()
        expect(page.get_by_role("button", name="Stop the download")).to_have_count(0)
    assert "token=secret" in server.asked[-1][0]
    assert (folder / "from afar.safetensors").read_bytes() == far.read_bytes()
    (folder / "from afar.safetensors").unlink()


def test_the_library(browser: Browser, sdxl_model: Path, lora_dir: Path, adapter: Path, tmp_path: Path) -> None:
    """In a plain folder: search, show a file, mark one, add two, put one on the board; all tabs list them."""
    folder = tmp_path / "library"
    shutil.copytree(lora_dir, folder)
    adapter = adapter.rename(adapter.with_name("brush.safetensors"))
    other = shutil.copyfile(lora_dir / "ink.safetensors", adapter.with_name("pen.safetensors"))
    write_kohya(other, random_factors({_MODULE: (64, 64)}, seed=9))
    with running(sdxl_model, folder, tmp_path / "data") as address, opened(browser, address) as page:
        go_to_adapters(page)
        card(page, "neon glow").wait_for()
        page.get_by_role("button", name="Favourite", exact=True).locator("visible=true").click()
        page.get_by_text("no adapter is chosen; choose one from the list").wait_for()
        page.get_by_role("checkbox", name="Favourites only").locator("visible=true").check()
        page.get_by_text("No favourites yet: choose an adapter and press Favourite.").wait_for()
        page.get_by_role("checkbox", name="Favourites only").locator("visible=true").uncheck()
        page.get_by_label(SEARCH).fill("drawing")
        expect(card(page, "neon glow")).to_have_count(0)
        card(page, "ink").focus()
        page.keyboard.press("Enter")
        page.locator("#facts").get_by_text("modules, rank").first.wait_for()
        expect(card(page, "ink")).to_have_attribute("aria-pressed", "true")
        page.get_by_role("button", name="Favourite", exact=True).locator("visible=true").click()
        page.get_by_role("button", name="Remove favourite").wait_for()
        assert Library(folder).get("ink").favourite
        tags = page.get_by_label("Tags", exact=True)
        page.get_by_label(SEARCH).fill("black")
        expect(card(page, "ink")).to_have_count(0)
        tags.fill("pen work, black")
        tags.press("Enter")
        card(page, "ink").wait_for()
        assert Library(folder).get("ink").tags == ("pen work", "black")
        page.get_by_label(SEARCH).fill("")
        tags.fill("pen work")
        card(page, "neon glow").click()  # the box loses the focus
        expect(tags).to_have_value("")
        card(page, "ink").click()
        expect(tags).to_have_value("pen work")
        page.get_by_role("checkbox", name="Favourites only").locator("visible=true").check()
        expect(card(page, "neon glow")).to_have_count(0)
        card(page, "ink").get_by_label("favourite").wait_for()
        page.get_by_role("checkbox", name="Favourites only").locator("visible=true").uncheck()

        # As a table, sorted, while a file was added to the folder; and the same after a reload.
        page.get_by_label("Table", exact=True).check()
        table = page.locator("#library").get_by_role("gridcell").or_(page.locator("#library td")).filter(visible=True)
        table.get_by_text("neon glow").first.wait_for()
        shutil.copyfile(adapter, folder / "first of all.safetensors")
        table.get_by_text("neon glow", exact=True).first.click()
        page.locator("#facts").get_by_role("heading", name="neon glow").wait_for()
        (folder / "first of all.safetensors").unlink()
        reload(page)
        go_to_adapters(page)
        table.get_by_text("neon glow").first.wait_for()
        expect(page.get_by_label("Table", exact=True)).to_be_checked()

        unfold(page, "Add to the library")
        name_box = page.get_by_label("Name (if it should differ from the file's)")
        for file, wanted, name in ((adapter, "my brush", "my brush"), (other, "", "pen")):
            expect(page.locator("#upload")).to_contain_text("Drop File Here")  # not the box that is about to be emptied
            page.locator("#upload input[type=file]").set_input_files(file)
            page.get_by_label(file.name, exact=True).wait_for()  # as text, it is there during the upload only
            name_box.fill(wanted)
            page.get_by_role("button", name="Add", exact=True).click()
            page.get_by_text(f"{name} is in the library").wait_for()
            expect(name_box).to_have_value("")  # the next file gets its own name
            assert (folder / f"{name}.safetensors").read_bytes() == file.read_bytes()
        page.get_by_role("button", name="Add to the board").click()
        shutil.copyfile(adapter, folder / "from elsewhere.safetensors")
        page.get_by_role("tab", name="Create").click()
        page.locator("#board").get_by_label("pen", exact=True).wait_for()
        choose(page, "Add a tag to the prompt", "my brush")
        expect(page.get_by_label("Prompt", exact=True)).to_have_value(re.compile("<lora:my brush:1>$"))
        choose(page, "Add an adapter", "from elsewhere")
        page.locator("#board").get_by_label("from elsewhere", exact=True).wait_for()
        page.screenshot(path=tmp_path / "library.png", full_page=True)

"""The real page in a real browser, in front of the real program."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from lorablend.app.pictures.png import open_picture, read_png
from lorablend.app.pictures.uploads import Uploads
from tests.adapter_files import random_factors, write_kohya
from tests.app.page.browser import choose, opened, reload, running, set_slider, unfold


@pytest.fixture(scope="module")
def adapters(lora_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ink, neon glow, a broken adapter, and one for another model."""
    adapters = shutil.copytree(lora_dir, tmp_path_factory.mktemp("page") / "adapters")
    (adapters / "broken.safetensors").write_text("<html>")
    old = ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k")
    write_kohya(adapters / "old.safetensors", random_factors({old: (320, 768)}), base="sd15")
    return adapters


def pictures(data: Path) -> set[Path]:
    return {path for path in (data / "pictures").glob("*/*.png") if not path.name.startswith(".")}


def draw(page: Page, data: Path) -> Path:
    """Press the button, and wait for the new picture."""
    before = pictures(data)
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_role("button", name="Stop")).to_be_enabled()
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    expect(page.get_by_text(re.compile(r"^1 picture in"))).to_be_visible()
    (new,) = pictures(data) - before
    return new


def fill(page: Page, prompt: str, *, seed: int = 7, steps: int = 2) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Seed", exact=True).first.fill(str(seed))
    set_slider(page, "Steps", str(steps))


def add_pedal(page: Page, name: str) -> None:
    choose(page, "Add an adapter", name)
    page.locator("#board").get_by_label(name, exact=True).wait_for()


def test_pedals_change_the_picture(page: Page, data: Path, tmp_path: Path) -> None:
    fill(page, "a fox")
    expect(page.get_by_text(re.compile(r"^\d+ of 75 tokens$"))).to_be_visible()
    bare = draw(page, data)

    add_pedal(page, "ink")
    set_slider(page, "Weight of ink", "0.8")
    add_pedal(page, "neon glow")
    expect(page.get_by_label("number input for Weight of ink")).to_have_value("0.8")  # kept while the board grew
    set_slider(page, "Weight of neon glow", "-0.4")
    page.get_by_role("button", name="ink drawing").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a fox, ink drawing")
    page.get_by_role("button", name="ink drawing").click()
    page.get_by_text("ink drawing is already in the prompt").wait_for()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a fox, ink drawing")
    styled = draw(page, data)
    record = read_png(styled).record
    assert record
    assert [(used.name, used.weight) for used in record.adapters] == [("ink", 0.8), ("neon glow", -0.4)]
    assert (record.request.prompt, record.seed) == ("a fox, ink drawing", 7)
    assert open_picture(bare).tobytes() != open_picture(styled).tobytes()
    expect(page.get_by_label("Settings of the picture")).to_have_value(read_png(styled).parameters or "")

    # Another weight gives another picture; the order is kept, and one adapter is turned off.
    set_slider(page, "Weight of ink", "0.2")
    page.get_by_role("button", name="Move neon glow up").click()
    expect(page.get_by_role("button", name="Move neon glow up")).to_be_disabled()
    weaker = draw(page, data)
    assert open_picture(weaker).tobytes() != open_picture(styled).tobytes()
    record = read_png(weaker).record
    assert record
    assert [item["adapter"] for item in record.request.blend["items"]] == ["neon glow", "ink"]
    page.locator("#board").get_by_label("neon glow", exact=True).uncheck()
    page.get_by_label("Prompt", exact=True).fill("a fox, not drawn")
    page.screenshot(path=tmp_path / "create.png", full_page=True)

    # The browser downloads the exact file, including its metadata.
    with page.expect_download() as download:
        page.locator("#picture").get_by_role("button", name="Download").click()
    assert download.value.path().read_bytes() == weaker.read_bytes()

    # A reload restores what was not drawn yet, including pedals that are off, and the picture.
    reload(page)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a fox, not drawn")
    expect(page.locator("#board").get_by_label("ink", exact=True)).to_be_checked()
    expect(page.locator("#board").get_by_label("neon glow", exact=True)).not_to_be_checked()
    expect(page.get_by_label("number input for Weight of neon glow")).to_have_value("-0.4")
    expect(page.get_by_label("Settings of the picture")).to_have_value(read_png(weaker).parameters or "")


def test_what_is_wrong_is_one_line(page: Page, data: Path) -> None:
    before = pictures(data)
    fill(page, "a fox <lora:onk:1>")
    page.get_by_role("button", name="Draw", exact=True).click()
    page.get_by_text(re.compile(r"onk: no adapter with that name among the 4 in \w+; did you mean ink\?")).wait_for()
    fill(page, "a fox")
    for name, message in (
        ("broken", "broken.safetensors: not a safetensors file: 6 bytes long, the header alone needs 8"),
        ("old", "old is for sd15, the model is sdxl; choose an adapter for sdxl"),
    ):
        add_pedal(page, name)
        page.locator("#board").get_by_text(message).wait_for()
        page.get_by_role("button", name="Draw", exact=True).click()
        expect(page.get_by_text(message)).to_have_count(2)
        page.get_by_role("button", name=f"Remove {name}").click()
        expect(page.locator("#board").get_by_label(name, exact=True)).to_have_count(0)
    assert pictures(data) == before

    # A number outside the slider's range becomes the nearest valid one, without an error in the console.
    for label, text, number in (("Width (pixels)", "99999", "2048"), ("Width (pixels)", "", "64"), ("Steps", "0", "1")):
        set_slider(page, label, text)
        expect(page.get_by_label(f"number input for {label}", exact=True)).to_have_value(number)


def test_two_tabs_see_a_job_and_one_stops_it(page: Page, browser: Browser, address: str, data: Path) -> None:
    fill(page, "a long run", steps=100)
    set_slider(page, "Pictures", "30")
    before = pictures(data)
    page.get_by_role("button", name="Draw", exact=True).click()
    page.get_by_text(re.compile(r"^picture \d+ of 30")).wait_for()
    page.get_by_role("button", name="Draw", exact=True).click()
    page.get_by_text(re.compile(r"· 1 waiting$")).wait_for()
    page.get_by_role("button", name="Stop").click()  # and again below, for the waiting one
    expect(page.get_by_text(re.compile(r"· 1 waiting$"))).to_have_count(0)  # the waiting one runs now
    expect(page.get_by_role("button", name="Stop")).to_be_enabled()
    page.get_by_text(re.compile(r"picture \d+ of 30 · step \d+ of 100 · \d+ s · about \d+ s to go")).wait_for()
    page.get_by_alt_text("Preview").wait_for()
    with opened(browser, address) as second:
        second.get_by_alt_text("Preview").wait_for()
        second.get_by_role("button", name="Stop").click()
        second.get_by_text("stopped", exact=True).wait_for()
    page.get_by_text("stopped", exact=True).wait_for()
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    assert len(pictures(data) - before) < 60


def test_writing_goes_on_while_it_draws(page: Page, data: Path) -> None:
    """A new picture does not take the keyboard's focus; a thumbnail shows an older one."""
    fill(page, "a fox", seed=1)
    older = draw(page, data)
    fill(page, "a hen", seed=2)
    page.get_by_role("button", name="Draw", exact=True).click()
    page.get_by_label("Prompt", exact=True).click()
    page.get_by_label("Prompt", exact=True).press("End")
    newer = page.locator("#picture").get_by_alt_text("a hen")
    for letter in " and more":
        page.keyboard.type(letter)
        page.wait_for_timeout(30)
    newer.wait_for()
    page.keyboard.type("!")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a hen and more!")
    page.locator("#newest").get_by_role("button", name=re.compile("^Thumbnail 2 of")).click()
    page.locator("#picture").get_by_alt_text("a fox").wait_for()
    expect(page.get_by_label("Settings of the picture")).to_have_value(read_png(older).parameters or "")
    page.get_by_role("button", name="Use these settings").first.click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a fox")


def test_lists_by_keyboard(page: Page) -> None:
    """Tabbing through a list changes nothing; typing and Enter choose an option."""
    steps = page.get_by_label("number input for Steps", exact=True)
    preset = page.get_by_label("Preset (steps, guidance, scheduler)", exact=True)
    pick(page, preset, "lcm")
    expect(steps).to_have_value("4")
    expect(preset).to_have_value("")  # its settings may be changed, so the preset is not shown as chosen
    set_slider(page, "Steps", "6")
    unfold(page, "Scheduler, format, model")
    scheduler, spacing = (page.get_by_label(name, exact=True) for name in ("Scheduler", "Spacing of noise levels"))
    pick(page, scheduler, "Euler")
    pick(page, spacing, "karras")
    expect(spacing).to_have_value("karras")
    for box in (preset, scheduler):
        box.focus()
        page.get_by_role("option").first.wait_for()
        page.keyboard.press("Tab")
    expect(spacing).to_have_value("karras")
    pick(page, page.get_by_label("Add an adapter", exact=True), "neon")
    page.locator("#board").get_by_label("neon glow", exact=True).wait_for()
    pick(page, page.get_by_label("Add an adapter", exact=True), "neon")  # the same one twice
    expect(page.locator("#board .pedal")).to_have_count(2)
    pick(page, page.get_by_label("Add a tag to the prompt", exact=True), "ink")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("<lora:ink:1>")
    expect(steps).to_have_value("6")
    expect(spacing).to_have_value("karras")

    # The focus stays on a moved pedal, or goes to its other button at the end of the board, and is visible.
    pick(page, page.get_by_label("Add an adapter", exact=True), "ink")
    up, down = (page.get_by_role("button", name=f"Move ink {way}") for way in ("up", "down"))
    up.focus()
    for place, button in ((1, up), (0, down)):
        page.keyboard.press("Enter")
        expect(page.locator("#board .pedal-head label").nth(place)).to_have_text("ink")
        expect(button).to_be_focused()
    for box in (page.get_by_label("Prompt", exact=True), page.get_by_label("range slider for Steps", exact=True)):
        box.focus()
        expect(box).to_have_css("outline-style", "solid")


def pick(page: Page, box: Locator, text: str) -> None:
    """Type part of an option, and choose the first one that contains it."""
    box.focus()
    page.get_by_role("option").filter(has_text=text).first.wait_for()
    page.keyboard.press("Control+A")
    page.keyboard.type(text, delay=50)
    expect(page.get_by_role("option").first).to_contain_text(text)
    page.keyboard.press("Enter")


def paint_over_the_newest(page: Page) -> None:
    """One stroke in the middle of the newest picture."""
    page.get_by_role("button", name="Take the newest picture").click()
    canvas = page.locator("#editor canvas").first
    canvas.scroll_into_view_if_needed()
    expect(page.locator("#editor").get_by_label("Brush", exact=True)).to_be_visible()
    page.locator("#editor").get_by_text(re.compile(r"^\d{3,}%$")).wait_for()  # the small picture has arrived, enlarged
    box = canvas.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 20, y)
    page.mouse.down()
    page.mouse.move(x + 20, y, steps=10)
    page.mouse.up()


def test_a_pedal_acts_where_it_is_painted(page: Page, data: Path) -> None:
    fill(page, "a fox", seed=5)
    plain = draw(page, data)
    add_pedal(page, "ink")
    unfold(page, "Start from a picture, paint masks")
    unfold(page, "More settings of ink")
    page.get_by_role("button", name="Use the painted mask").click()
    page.get_by_text("nothing is painted; paint over the part to change").wait_for()
    paint_over_the_newest(page)
    page.get_by_role("button", name="Use the painted mask").click()
    box = page.get_by_label("Mask: left, top, right, bottom")
    expect(box).to_have_value(re.compile("^[0-9a-f]{64}$"))
    white = np.asarray(Uploads(data / "uploads").open(box.input_value())) > 0
    assert 0.01 < white.mean() < 0.9
    masked = draw(page, data)
    box.fill("")
    everywhere = draw(page, data)
    assert len({open_picture(path).tobytes() for path in (plain, masked, everywhere)}) == 3
    page.locator("#newest").get_by_role("button", name=re.compile("^Thumbnail 2 of")).click()
    page.get_by_role("button", name="Use these settings").first.click()
    expect(page.get_by_label("Mask: left, top, right, bottom")).to_have_value(re.compile("^[0-9a-f]{64}$"))
    assert draw(page, data).read_bytes() == masked.read_bytes()


def test_start_from_a_picture(page: Page, data: Path) -> None:
    fill(page, "a fox", seed=6)
    set_slider(page, "Width (pixels)", "96")
    start = draw(page, data)
    assert open_picture(start).size == (96, 64)
    set_slider(page, "Width (pixels)", "64")
    page.get_by_role("button", name="Start from this picture").click()
    page.get_by_alt_text("The picture to start from").wait_for()
    expect(page.get_by_label("number input for Width (pixels)")).to_have_value("96")  # otherwise it would be distorted
    unfold(page, "Start from a picture, paint masks")
    set_slider(page, "Strength (1: nothing is kept)", "0.5")
    page.get_by_label("Prompt", exact=True).fill("a boat")
    drawn = draw(page, data)
    record = read_png(drawn).record
    assert record
    assert record.request.strength == 0.5
    assert open_picture(drawn).size == (96, 64)
    kept = [open_picture(path) for path in (data / "uploads").glob("*.png")]
    assert open_picture(start).convert("RGB").tobytes() in {one.convert("RGB").tobytes() for one in kept}


def test_seeds(page: Page, data: Path) -> None:
    """The dice give a new seed, a button the last picture's; without a seed, each picture has another one."""
    fill(page, "a fox")
    seed = page.get_by_label("Seed", exact=True).first
    page.get_by_role("button", name="Dice").click()
    expect(seed).not_to_have_value("7")
    thrown = seed.input_value()
    record = read_png(draw(page, data)).record
    assert record
    assert str(record.seed) == thrown
    seed.fill("")
    record = read_png(draw(page, data)).record
    assert record
    assert str(record.seed) != thrown
    expect(seed).to_have_value("")
    page.get_by_role("button", name="Last seed").click()
    expect(seed).to_have_value(str(record.seed))


def test_repaint_what_is_painted(page: Page, data: Path) -> None:
    fill(page, "a fox", seed=3)
    start = draw(page, data)
    unfold(page, "Start from a picture, paint masks")
    page.get_by_role("button", name="Repaint what is painted").click()
    page.get_by_text("there is no picture; drop one into the box, or take the newest").wait_for()
    paint_over_the_newest(page)
    page.get_by_role("button", name="Repaint what is painted").click()
    page.get_by_alt_text("The mask: white is repainted").wait_for()
    set_slider(page, "Strength (1: nothing is kept)", "0.9")
    page.get_by_label("Prompt", exact=True).fill("a boat")
    repainted = draw(page, data)
    record = read_png(repainted).record
    assert record
    assert record.request.strength == 0.9
    masks = [path.stem for path in (data / "uploads").glob("*.png")]
    (mask,) = [mask for name in masks if (mask := Uploads(data / "uploads").open(name)).mode == "L"]
    white = np.asarray(mask.resize((64, 64))) > 0
    assert 0.01 < white.mean() < 0.9
    old, new = (np.asarray(open_picture(path)).astype(int) for path in (start, repainted))
    assert (old[~white] == new[~white]).mean() > 0.9  # the mask is blended in cells of 8 pixels
    assert (old[white] != new[white]).mean() > 0.5

    # The settings of that picture, including the start and the mask, give the same file again.
    page.get_by_label("Prompt", exact=True).fill("something else")
    page.get_by_role("button", name="Start from noise again").click()
    expect(page.get_by_alt_text("The mask: white is repainted")).to_have_count(0)
    page.get_by_role("button", name="Use these settings").first.click()
    page.get_by_alt_text("The mask: white is repainted").wait_for()
    assert draw(page, data).read_bytes() == repainted.read_bytes()


def test_compare_styles_and_presets(page: Page, data: Path, tmp_path: Path) -> None:
    fill(page, "a fox", seed=11)
    page.get_by_role("button", name="Compare").first.click()
    page.get_by_text("no pedal is on; add one, or turn one on").wait_for()
    add_pedal(page, "ink")
    set_slider(page, "Weight of ink", "0.7")
    before = pictures(data)
    page.get_by_role("button", name="Compare").first.click()
    expect(page.locator("#row .thumbnail-item img")).to_have_count(2)
    records = [read_png(path).record for path in pictures(data) - before]
    assert {record and record.seed for record in records} == {11}
    reload(page)
    expect(page.locator("#row .thumbnail-item img")).to_have_count(2)
    page.screenshot(path=tmp_path / "compared.png", full_page=True)

    # Stop ends all of them, and the next drawing is shown alone.
    set_slider(page, "Steps", "100")
    page.get_by_role("button", name="Compare").first.click()
    page.get_by_text(re.compile(r"^step \d+ of 100.*· 1 waiting$")).wait_for()
    before = pictures(data)
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("stopped", exact=True).wait_for()
    assert pictures(data) == before
    set_slider(page, "Steps", "2")
    draw(page, data)
    expect(page.locator("#row")).to_have_count(0)

    unfold(page, "Styles (saved boards)")
    page.get_by_label("Name", exact=True).fill("Quiet ink")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Saved", exact=True).wait_for()
    page.get_by_role("button", name="Remove ink").click()
    page.locator("#board .empty").wait_for()
    choose(page, "Load a style", "Quiet ink")
    expect(page.get_by_label("number input for Weight of ink")).to_have_value("0.7")
    expect(page.get_by_label("Name", exact=True)).to_have_value("Quiet ink")
    page.get_by_role("button", name="Delete", exact=True).first.click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("")
    page.get_by_label("Load a style", exact=True).click()
    expect(page.get_by_role("option", name="Quiet ink")).to_have_count(0)
    page.keyboard.press("Escape")

    choose(page, "Preset (steps, guidance, scheduler)", "lcm")
    expect(page.get_by_label("number input for Steps", exact=True)).to_have_value("4")


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone(browser: Browser, address: str, tmp_path: Path, dark: bool) -> None:
    """In no tab is anything wider than the screen; every control has a name."""
    with opened(browser, address, width=390, height=844, dark=dark) as page:
        for tab in ("Create", "Gallery", "Adapters", "Grid", "Train", "Models and devices"):
            if not page.get_by_role("tab", name=tab, exact=True).is_visible():
                page.get_by_role("button", name="More tabs").or_(page.locator(".overflow-menu > button")).first.click()
            page.get_by_role("tab", name=tab, exact=True).or_(
                page.get_by_role("button", name=tab, exact=True)
            ).first.click()
            page.get_by_role("tabpanel").filter(visible=True).first.wait_for()
            page.screenshot(path=tmp_path / f"{tab}{' dark' if dark else ''}.png", full_page=True)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 390, f"{tab} is {width} pixels wide"
            assert page.evaluate(_NAMELESS) == []


_NAMELESS = """() => [...document.querySelectorAll("input, select, textarea, button, img")].filter(one =>
    one.offsetParent !== null && !(one.labels && one.labels.length && one.labels[0].textContent.trim())
    && !one.getAttribute("aria-label") && !one.title && !one.textContent.trim() && one.getAttribute("alt") === null
    && !one.querySelector('img[alt]:not([alt=""])')
    && one.type !== "file").map(one => one.outerHTML.slice(0, 200))"""


def test_found_again_after_a_restart(browser: Browser, sdxl_model: Path, adapters: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(sdxl_model, adapters, data) as address, opened(browser, address) as page:
        fill(page, "a lighthouse", seed=21)
        add_pedal(page, "ink")
        set_slider(page, "Weight of ink", "0.65")
        unfold(page, "More settings of ink")
        expect(page.get_by_label("UNet weight", exact=True)).to_have_value("")
        page.get_by_label("Text encoder weight").fill("0.25")
        page.get_by_label("Weights by block").fill("OUTALL")
        page.get_by_label("Mask: left, top, right, bottom").fill("0, 0, 0.5, 1")
        first = draw(page, data)
    record = read_png(first).record
    assert record
    (item,) = record.request.blend["items"]
    assert (item["weight"], item.get("unet"), item["text_encoder"], item["blocks"]) == (0.65, None, 0.25, "OUTALL")
    with running(sdxl_model, adapters, data) as address, opened(browser, address) as page:
        page.get_by_role("tab", name="Gallery").click()
        page.get_by_label("Words of the prompt").fill("lighthouse")
        page.get_by_label("Words of the prompt").press("Enter")
        page.locator("#grid").get_by_role("button", name="Thumbnail 1 of 1").click()
        expect(page.get_by_label("Metadata")).to_have_value(read_png(first).parameters or "")
        page.screenshot(path=tmp_path / "gallery.png", full_page=True)
        page.locator("#details").get_by_role("button", name="Use these settings").click()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("a lighthouse")
        expect(page.get_by_label("number input for Weight of ink")).to_have_value("0.65")
        assert draw(page, data).read_bytes() == first.read_bytes()

        # Deleted and restored.
        page.get_by_role("tab", name="Gallery").click()
        page.locator("#grid").get_by_role("button", name="Thumbnail 2 of 2").click()
        page.locator("#details").get_by_role("button", name="Delete", exact=True).click()
        page.locator("#grid").get_by_role("button", name="Thumbnail 1 of 1").wait_for()
        assert not first.exists()
        page.get_by_role("button", name="Bin").click()
        page.get_by_role("button", name="Restore").click()
        page.locator("#grid").get_by_role("button", name="Thumbnail 2 of 2").wait_for()
        assert first.exists()

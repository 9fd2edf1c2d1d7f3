"""Make the pictures of README and docs: the demo's sheet, and the page in a headless Chromium.

    python -m docs.make_pictures

Takes two minutes, needs the `dev` extra and a `chromium` on the path, and replaces what is in docs/pictures.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from lorablend.shipped import adapters_dir, model_dir
from tests.app.page.browser import browsing, choose, opened, running, set_slider

PICTURES = Path(__file__).parent / "pictures"
PROMPT = "a large red boat on the left, by the sea, at sunset, in riso and comic style"
SHEET_WIDTH = 1000  # pixels
TIMES = 44  # pixels at the bottom of the sheet, which say how fast this machine was
PAGE_SIZE = (1280, 990)  # pixels


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        _sheet(Path(folder) / "demo")
        _page(Path(folder) / "data")
    for path in sorted(PICTURES.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")  # noqa: T201


def _sheet(out: Path) -> None:
    subprocess.run([sys.executable, "-m", "lorablend.app.cli", "demo", "--out", str(out)], check=True)
    with Image.open(out / "sheet.png") as sheet:
        _save(sheet.crop((0, 0, sheet.width, sheet.height - TIMES)), "sheet.jpg", SHEET_WIDTH)


def _page(data: Path) -> None:
    width, height = PAGE_SIZE
    with (
        running(model_dir(), adapters_dir(), data) as address,
        browsing() as browser,
        opened(browser, address, width=width, height=height) as page,
    ):
        page.get_by_label("Prompt", exact=True).fill(PROMPT)
        page.get_by_label("Seed", exact=True).first.fill("7")
        for name, weight in (("riso", "0.8"), ("comic", "0.5")):
            choose(page, "Add an adapter", name)
            page.locator("#board").get_by_label(name, exact=True).wait_for()
            set_slider(page, f"Weight of {name}", weight)
        _draw(page)
        _draw(page)  # the first time is longer, for the model is compiled
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        page.wait_for_timeout(1000)  # until the newest picture has faded in
        _save(Image.open(BytesIO(page.screenshot())), "page.jpg", width)


def _draw(page: Page) -> None:
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_role("button", name="Stop")).to_be_enabled()
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    expect(page.get_by_text(re.compile(r"^1 picture in"))).to_be_visible()
    page.mouse.move(0, 0)


def _save(picture: Image.Image, name: str, width: int) -> None:
    """As JPEG, at that width."""
    height = round(picture.height * width / picture.width)
    picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).save(
        PICTURES / name, quality=80, optimize=True
    )


if __name__ == "__main__":
    main()

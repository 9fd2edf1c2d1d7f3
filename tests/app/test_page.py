"""The real page in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from lorablend.app.page import _without_folders
from lorablend.app.png import open_picture, read_png
from tests.adapter_files import random_factors, write_kohya

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
PATIENCE = 60_000  # milliseconds: the first picture compiles the model

# The program, with every address that its own process calls written down.
_PROGRAM = """
import sys
def note(event, details):
    if event in ("socket.connect", "socket.getaddrinfo"):
        with open(sys.argv[1], "a") as calls:
            print(details[1] if event == "socket.connect" else details[0], file=calls)
sys.addaudithook(note)
from lorablend.app.cli import run
sys.exit(run(sys.argv[2:]))
"""


@pytest.fixture
def server(sdxl_model: Path, lora_dir: Path, tmp_path: Path) -> Iterator[str]:
    """The page's address; pictures go to tmp_path/out. At the end the server must have called nobody but itself."""
    calls, adapters = tmp_path / "calls", tmp_path / "adapters"
    shutil.copytree(lora_dir, adapters)
    (adapters / "broken.safetensors").write_text("<html>")
    old = ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k")
    write_kohya(adapters / "old.safetensors", random_factors({old: (320, 768)}), base="sd15")
    command = [str(calls), "ui", str(sdxl_model), "--lora-dir", str(adapters), "--out", str(tmp_path / "out")]
    child = subprocess.Popen([sys.executable, "-u", "-c", _PROGRAM, *command], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    started = re.fullmatch(r"open (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", child.stdout.readline())
    assert started
    yield started[1]
    child.terminate()
    child.wait(timeout=30)
    child.stdout.close()
    called = set(calls.read_text().splitlines())
    assert not {call for call in called if "127.0.0.1" not in call and "localhost" not in call}


@pytest.fixture
def page() -> Iterator[Page]:
    """A browser page; at the end there must have been no error in its console, and no request but to this machine."""
    if not CHROMIUM:
        pytest.fail("chromium is not installed; run: apt-get install chromium")
    troubles: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1360, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: troubles.append(request.url) if _is_outside(request.url) else None)
        page.on("response", lambda reply: troubles.append(f"{reply.status} {reply.url}") if not reply.ok else None)
        yield page
        browser.close()
    assert not troubles


def _is_outside(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1"


def test_a_session(server: str, page: Page, tmp_path: Path) -> None:
    out = tmp_path / "out"
    page.goto(server)
    generate, stop = page.get_by_role("button", name="Generate"), page.get_by_role("button", name="Stop")
    settings = page.get_by_label("Settings", exact=True)
    expect(stop).to_be_disabled()

    # A picture without adapters, seen while it is drawn.
    page.get_by_label("Prompt", exact=True).fill("a fox in the snow")
    page.get_by_label("Negative prompt").fill("blurry")
    page.get_by_label("New seed each time").uncheck()
    page.get_by_label("Seed", exact=True).fill("7")
    generate.click()
    page.get_by_alt_text("Preview").wait_for()
    page.get_by_text("1 picture in").wait_for()
    expect(generate).to_be_enabled()
    expect(settings).to_have_value(re.compile(r"^a fox in the snow\nNegative prompt: blurry\nSteps: 20, .*Seed: 7, "))
    (bare,) = out.iterdir()

    # The same with an adapter: another picture, and no new compilation.
    page.get_by_label("ink", exact=True).check()
    page.get_by_text("trigger words: ink drawing").wait_for()
    page.get_by_label("number input for Weight of ink").fill("0.8")
    page.get_by_label("number input for Weight of ink").press("Tab")
    generate.click()
    expect(settings).to_have_value(re.compile(r"^a fox in the snow <lora:ink:0\.8>\n"))
    (styled,) = set(out.iterdir()) - {bare}
    assert open_picture(bare).tobytes() != open_picture(styled).tobytes()
    record = read_png(styled).record
    assert record
    assert record.request.blend == {"mode": "sum", "items": [{"adapter": "ink", "weight": 0.8}]}
    assert record.request.seed == 7
    assert read_png(styled).parameters == settings.input_value()
    page.screenshot(path=tmp_path / "page.png", full_page=True)

    # The file that the browser gets is the one on disk, metadata included.
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").first.click()
    assert download.value.path().read_bytes() == styled.read_bytes()

    # One that is broken, or for another model, says so when it is switched on, and when it is drawn with.
    broken = "broken.safetensors: not a safetensors file: 6 bytes long, the header alone needs 8"
    old = "old is for sd15, the model is sdxl; choose an adapter for sdxl"
    for name, message in (("broken", broken), ("old", old)):
        page.get_by_label(name, exact=True).check()
        expect(page.get_by_text(message)).to_have_count(1)
        generate.click()
        expect(page.get_by_text(message)).to_have_count(2)
        expect(generate).to_be_enabled()
        page.get_by_label(name, exact=True).uncheck()

    # An error is one line, without this machine's folders.
    page.get_by_label("Prompt", exact=True).fill("a fox <lora:onk:1>")
    generate.click()
    page.get_by_text(re.compile(r"onk: no adapter of that name among the 4 in \w+; did you mean ink\?")).wait_for()
    expect(generate).to_be_enabled()

    # So is a value that Gradio itself refuses.
    page.get_by_label("Seed", exact=True).fill("-1")
    generate.click()
    page.get_by_text("Value -1 is less than minimum value 0").wait_for()
    page.get_by_text("failed").wait_for()
    expect(generate).to_be_enabled()
    page.get_by_label("Seed", exact=True).fill("7")

    # Stop ends a long run soon, and the page is ready for the next.
    page.get_by_label("Prompt", exact=True).fill("a fox")
    page.get_by_label("number input for Steps").fill("100")
    page.get_by_label("number input for Pictures").fill("16")
    page.get_by_label("number input for Pictures").press("Tab")
    generate.click()
    page.get_by_text(re.compile("picture 1 of 16 · step")).wait_for()
    stop.click()
    page.get_by_text("stopped, ").wait_for()
    expect(generate).to_be_enabled()
    assert len(list(out.iterdir())) < 8


def test_messages_do_not_tell_folders(tmp_path: Path) -> None:
    text = f"{tmp_path}/ink.safetensors is broken; look in {tmp_path}"
    assert _without_folders(text, (None, tmp_path)) == f"ink.safetensors is broken; look in {tmp_path.name}"

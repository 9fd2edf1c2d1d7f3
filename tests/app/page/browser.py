"""Helpers that start the program and open its page in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

__all__ = ["PATIENCE", "browsing", "choose", "opened", "reload", "running", "set_slider", "unfold"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
PATIENCE = 90_000  # milliseconds: the first picture compiles the model

_TROUBLES: WeakKeyDictionary[Page, list[str]] = WeakKeyDictionary()
_IDLE: WeakKeyDictionary[Browser, list[BrowserContext]] = WeakKeyDictionary()  # contexts to be used again
# What Gradio writes to the console of a page that is left during a request.
_LEAVING = re.compile(r"AbortError: signal is aborted without reason\b|Unexpected error Connection errored out\.")

# The program, recording every address that its own process connects to.
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


@contextmanager
def running(model: Path, adapters: Path, data: Path) -> Iterator[str]:
    """Run `lorablend ui` and yield its address. At the end, it must not have connected to any other machine."""
    calls = data.with_name(f"{data.name} calls")
    command = ["ui", str(model), "--lora-dir", str(adapters), "--data", str(data)]
    child = subprocess.Popen(
        [sys.executable, "-u", "-c", _PROGRAM, str(calls), *command], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout
        line = child.stdout.readline()
        started = re.fullmatch(r"open (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", line)
        assert started, line
        yield started[1]
    finally:
        child.terminate()
        child.wait(timeout=60)
        if child.stdout:
            child.stdout.close()
    addresses = set(calls.read_text().splitlines()) if calls.exists() else set()
    outside = {call for call in addresses if "127.0.0.1" not in call and "localhost" not in call}
    assert not outside, outside


@contextmanager
def browsing() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.fail("chromium is not installed; run: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, address: str, *, width: int = 1360, height: int = 1400, dark: bool = False
) -> Iterator[Page]:
    """Open the page in a browser context that remembers nothing but Gradio's scripts, which are slow to load.

    At the end, its console must have no errors, and there must not have been requests to other machines.
    """
    troubles: list[str] = []
    expect.set_options(timeout=PATIENCE)
    idle = _IDLE.setdefault(browser, [])
    context = idle.pop() if idle else browser.new_context(accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme="dark" if dark else "light")
    page.goto(f"{address}healthz")  # the page itself would write its storage again
    page.evaluate("localStorage.clear(); sessionStorage.clear()")
    _TROUBLES[page] = troubles
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: troubles.append(request.url) if _is_outside(request.url) else None)
    page.on("response", lambda reply: troubles.append(f"{reply.status} {reply.url}") if reply.status >= 400 else None)
    page.goto(address)
    page.locator("#board .empty, #board .pedal").first.wait_for()  # drawn last
    yield page  # a context in which a test failed is not used again
    page.close()
    context.clear_cookies()
    context.clear_permissions()
    idle.append(context)
    assert not troubles, troubles


def set_slider(page: Page, label: str, value: str) -> None:
    box = page.get_by_label(f"number input for {label}", exact=True)
    box.fill(value)
    box.press("Tab")


def choose(page: Page, label: str, option: str, *, within: str = "body") -> None:
    """Open the list with this label and click an option, without retrying: a list that closes by itself is a bug."""
    page.locator(within).get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def unfold(page: Page, name: str) -> None:
    """Open an accordion, and wait: two frames later, Gradio resets its boxes, whatever was typed meanwhile."""
    page.get_by_role("button", name=name).click()
    page.evaluate(
        "() => new Promise(done => { let left = 4; const next = () => left-- ? requestAnimationFrame(next) : done();"
        " next(); })"
    )


def reload(page: Page) -> None:
    """Reload the page. This may interrupt requests for the state of the jobs, of which there are some each second."""
    troubles = _TROUBLES[page]
    before = len(troubles)
    page.reload()
    troubles[before:] = [text for text in troubles[before:] if not _LEAVING.match(text)]


def _is_outside(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1"

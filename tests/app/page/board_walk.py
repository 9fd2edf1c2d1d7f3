"""A hurried user of the pedal board on a busy machine, for the tests and for bench/board.py."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from tests.app.page.browser import choose, reload, set_slider, unfold

__all__ = ["busy", "hurry"]

PAUSE = 150  # milliseconds between clicks
MOST = 6  # pedals

# Notes how long each added pedal takes, from the press that chooses it to the frame that shows it.
_WATCH_ADDING = """() => {
  window.adding = [];
  const count = () => document.querySelectorAll("#board .pedal").length;
  let begun = 0, before = count();
  document.addEventListener("mousedown", event => {
    if (event.target.closest("[role=option]")) begun = performance.now();
  }, true);
  new MutationObserver(() => {
    const now = count(), since = begun;
    if (now > before && since) requestAnimationFrame(() => window.adding.push((performance.now() - since) / 1000));
    if (now > before) begun = 0;
    before = now;
  }).observe(document.querySelector("#board"), {childList: true, subtree: true});
}"""

_SHOWN = """() => [...document.querySelectorAll("#board .pedal")].map(pedal => ({
  adapter: pedal.querySelector(".pedal-head label").textContent.trim(),
  on: pedal.querySelector("input[type=checkbox]").checked,
  weight: Number(pedal.querySelector("input[type=number]").value),
}))"""


@contextmanager
def busy(count: int = 2) -> Iterator[None]:
    """Keep that many cores busy."""
    children = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


def hurry(page: Page, adapters: Sequence[str], styles: Path, seed: int, actions: int = 24) -> list[float]:
    """Empty the board, add six pedals, then add, remove, move and edit some at random, without waiting for the page.

    Afterwards, the board must be as its user made it: on the page, on the server, and after a reload.

    Args:
        page: At the tab Create.
        adapters: Names of more than six adapters.
        styles: The program's folder of styles.
        seed: Decides what is done.
        actions: How much is done after the six have been added.

    Returns:
        The seconds from each choice of an adapter to the frame that showed it.
    """
    page.evaluate(_WATCH_ADDING)
    rng, board = random.Random(seed), list[dict[str, Any]]()
    for _ in range(page.locator("#board .pedal").count()):
        page.locator("#board .remove").last.click()
        page.wait_for_timeout(PAUSE)
    for _ in range(MOST):
        _add(page, board, adapters, rng)
    for _ in range(actions):
        action = rng.choice(["add", "remove", "remove", "move", "move", "weigh", "switch", "write"])
        if action == "remove" and len(board) > 1:
            page.get_by_role("button", name=f"Remove {board.pop(rng.randrange(len(board)))['adapter']}").click()
        elif action in ("add", "remove") and len(board) < MOST:
            _add(page, board, adapters, rng)
        elif action == "move" and len(board) > 1:
            at = rng.randrange(len(board) - 1)
            name, way = rng.choice([(board[at]["adapter"], "down"), (board[at + 1]["adapter"], "up")])
            page.get_by_role("button", name=f"Move {name} {way}").click()
            board[at : at + 2] = reversed(board[at : at + 2])
        else:
            _edit(page, rng.choice(board), action, rng)
        page.wait_for_timeout(PAUSE)

    shown = [{key: pedal[key] for key in ("adapter", "on", "weight")} for pedal in board]
    assert page.evaluate(_SHOWN) == shown
    assert _saved(page, styles, f"hurried {seed}") == [_item(pedal) for pedal in board]
    seconds = page.evaluate("() => window.adding")
    _remembered(page)
    reload(page)
    expect(page.locator("#board .pedal")).to_have_count(len(board))
    assert page.evaluate(_SHOWN) == shown
    assert _saved(page, styles, f"reloaded {seed}") == [_item(pedal) for pedal in board]
    return seconds


def _remembered(page: Page) -> None:
    """Wait until the browser has written nothing more about the board for a while; it encrypts it again each time."""
    before, now = "", None
    while now != before:
        page.wait_for_timeout(10 * PAUSE)
        before, now = now, page.evaluate("() => localStorage.getItem('lorablend board')")


def _add(page: Page, board: list[dict[str, Any]], adapters: Sequence[str], rng: random.Random) -> None:
    name = rng.choice([name for name in adapters if name not in {pedal["adapter"] for pedal in board}])
    choose(page, "Add an adapter", name)
    board.append({"adapter": name, "on": True, "weight": 1.0, "unet": ""})
    page.wait_for_timeout(PAUSE)


def _edit(page: Page, pedal: dict[str, Any], action: str, rng: random.Random) -> None:
    name = pedal["adapter"]
    card = page.locator("#board .pedal").filter(has=page.get_by_label(name, exact=True))
    if action == "weigh":
        pedal["weight"] = rng.randrange(-40, 41) / 20
        set_slider(page, f"Weight of {name}", repr(pedal["weight"]))
    elif action == "switch":
        pedal["on"] = not pedal["on"]
        card.get_by_label(name, exact=True).set_checked(pedal["on"])
    else:
        pedal["unet"] = repr(rng.randrange(100) / 100)
        if not card.get_by_label("UNet weight", exact=True).is_visible():
            card.get_by_role("button", name=f"More settings of {name}").click()
        card.get_by_label("UNet weight", exact=True).fill(pedal["unet"])


def _item(pedal: dict[str, Any]) -> dict[str, Any]:
    """The pedal as styles have it."""
    form = {"adapter": pedal["adapter"], "weight": pedal["weight"]}
    form |= {"unet": float(pedal["unet"])} if pedal["unet"] else {}
    return form if pedal["on"] else form | {"on": False}


def _saved(page: Page, styles: Path, name: str) -> list[dict[str, Any]]:
    """What the server has of the board: saved as a style."""
    if not page.get_by_label("Name", exact=True).is_visible():
        unfold(page, "Styles (saved boards)")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Save", exact=True).click()
    file = styles / f"{name}.json"
    for _ in range(300):
        if file.exists():
            break
        page.wait_for_timeout(100)
    return json.loads(file.read_text("utf-8"))["blend"]["items"]

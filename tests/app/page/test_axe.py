"""axe-core finds nothing serious in any tab of the page, light or dark, wide or narrow."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.app.page.browser import choose, opened, set_slider

SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def address(browser: Browser, address: str) -> str:
    """With a picture in the gallery."""
    with opened(browser, address) as page:
        page.get_by_label("Prompt", exact=True).fill("a fox")
        set_slider(page, "Steps", "2")
        page.get_by_role("button", name="Draw", exact=True).click()
        expect(page.get_by_text(re.compile(r"^1 picture in"))).to_be_visible()
    return address


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1360, False), (390, True)])
def test_no_serious_finding(browser: Browser, address: str, width: int, dark: bool) -> None:
    with opened(browser, address, width=width, dark=dark) as page:
        choose(page, "Add an adapter", "ink")
        page.locator("#board").get_by_label("ink", exact=True).wait_for()
        findings = [finding for name in _tabs(page) for finding in _findings(page, name)]
        _open(page, "Adapters")
        page.get_by_label("Search names, trigger words, tags, hashes").fill("nothing like this")
        page.get_by_text("No adapter matches.").wait_for()
        findings += _serious(page, "no adapters")
        assert not findings, "\n".join(findings)


def _findings(page: Page, name: str) -> list[str]:
    _open(page, name)
    if name == "Adapters":
        page.locator("#library").get_by_text("ink").filter(
            visible=True
        ).first.wait_for()  # the table is filled when its tab is opened
    return _serious(page, name)


def _serious(page: Page, name: str) -> list[str]:
    return [
        f"{name}: {node['html'][:160]}: {node['failureSummary']}"
        for one in Axe().run(page).response["violations"]
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


def _tabs(page: Page) -> list[str]:
    """Including the tabs that a narrow window moves to a menu."""
    names = [
        name.strip() for name in page.locator("#tabs [role=tab], #tabs .overflow-dropdown button").all_inner_texts()
    ]
    names = list(dict.fromkeys(name for name in names if name))
    assert names[0] == "Create"
    assert "Models and devices" in names, names
    return names


def _open(page: Page, name: str) -> None:
    tab = page.get_by_role("tab", name=name, exact=True).locator("visible=true")
    if not tab.count():
        page.locator("#tabs .overflow-menu > button").click()
        page.locator("#tabs .overflow-dropdown").get_by_role("button", name=name, exact=True).click()
    else:
        tab.first.click()
    expect(page.get_by_role("tabpanel").locator("visible=true")).to_have_count(1)

"""The browser, and the program whose page most tests open in it; a test file may override any of the fixtures."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.app.page.browser import browsing, opened, running


@pytest.fixture(scope="module")  # no wider: playwright's event loop runs as long as its browser
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
def adapters(lora_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `lora_dir`, to which the program may write."""
    return shutil.copytree(lora_dir, tmp_path_factory.mktemp("page") / "adapters")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program's data folder, which does not exist yet."""
    return tmp_path_factory.mktemp("page data") / "data"


@pytest.fixture(scope="module")
def address(sdxl_model: Path, adapters: Path, data: Path) -> Iterator[str]:
    """Where the program serves its page."""
    with running(sdxl_model, adapters, data) as address:
        yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address) as page:
        yield page

"""The command line runs in the tests' own process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest.mock import patch

import pytest


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """What a command sets for its process, as `serve` what its downloads may reach, ends with the test."""
    with patch.dict(os.environ):
        yield

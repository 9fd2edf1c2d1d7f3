"""What others send is not in the log at full length."""

from __future__ import annotations

import io
import logging
import traceback
from contextlib import redirect_stderr

import pytest

from lorablend.app.log import ShortLines, shortened


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("", ""),
        ("a line\n", "a line\n"),
        ("x" * 500, "x" * 500),
        ("x" * 63_000_000, "x" * 500 + "… (62,999,500 characters left out)"),
        ("a\n" + "x" * 501 + "\nb\n", "a\n" + "x" * 500 + "… (1 characters left out)\nb\n"),
        ("a\n" * 1000, "a\n" * 100 + "… (801 lines left out)\n" + "a\n" * 99),
    ],
)
def test_long_texts_are_cut(text: str, short: str) -> None:
    assert shortened(text) == short


def test_every_way_into_the_log() -> None:
    """As Gradio prints a traceback, and as `logging` writes one: where it came from is told, and what is short."""
    stream = io.StringIO()
    with redirect_stderr(ShortLines(stream)):
        handler = logging.StreamHandler()
        log = logging.Logger("a")
        log.addHandler(handler)
        try:
            float("x" * 1_000_000)
        except ValueError:
            traceback.print_exc()
            log.exception("a job")
        log.error("%s", "y" * 1_000_000)
    text = stream.getvalue()
    assert text.count("could not convert string to float: 'xxxx") == 2
    assert text.count("in test_every_way_into_the_log") == 2
    assert len(text) < 5000

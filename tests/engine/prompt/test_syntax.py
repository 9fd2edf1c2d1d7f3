"""Escaped brackets, and syntax of other programs that is drawn as plain text."""

from __future__ import annotations

import pytest

from lorablend.engine.prompt.syntax import text_only_warnings, unescaped, unsupported_warnings


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        (r"lux \(series\)", "lux (series)"),
        (r"\[a\]", "[a]"),
        (r"a\\b", r"a\b"),
        (r"\\(a)", r"\(a)"),
        (r"a\b", r"a\b"),
        (r"\{a\}", r"\{a\}"),
        ("(a)", "(a)"),
        ("a\\", "a\\"),
    ],
)
def test_unescaped(written: str, seen: str) -> None:
    assert unescaped(written) == seen


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (("a (red:1.3) fox",), "(red:1.3)"),
        (("a fox", "a [red] fox"), "[red]"),
        (("a fox BREAK a hill", None), "BREAK"),
        (("a fox AND a hill", None), "AND"),
        (("a (nested (red)) fox", None), "(red)"),
        (("a fox, (red", None), "("),
        (("a fox", "[red"), "["),
        ((r"a fox \(red\), breakfast and dinner)", None), None),
        ((None, ""), None),
    ],
)
def test_text_only(texts: tuple[str | None, ...], shown: str | None) -> None:
    text = "is drawn as plain text; weights of words, [a:b:0.5] and BREAK need runtime=live"
    assert text_only_warnings(*texts) == ([f"{shown!r} {text}"] if shown else [])


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (("a fox AND a hill",), "AND"),
        (("a fox", "a hill\nAND:0.5"), "AND"),
        ((r"a (red:1.3) [fox:cat:0.5], BAND and hill", None), None),
        ((None, ""), None),
    ],
)
def test_unsupported(texts: tuple[str | None, ...], shown: str | None) -> None:
    text = "is drawn as plain text; it does not divide a prompt here"
    assert unsupported_warnings(*texts) == ([f"{shown!r} {text}"] if shown else [])

"""Weights of words, read by A1111's and by ComfyUI's rules."""

from __future__ import annotations

import time

import pytest

from lorablend.engine.prompt.weights import Part, read_weights

A1111 = {
    "": [[("", 1)]],
    "a fox": [[("a fox", 1)]],
    "a (red) fox": [[("a ", 1), ("red", 1.1), (" fox", 1)]],
    "a ((red)) fox": [[("a ", 1), ("red", 1.21), (" fox", 1)]],
    "a [red] fox": [[("a ", 1), ("red", 1 / 1.1), (" fox", 1)]],
    "a (red:1.3) fox": [[("a ", 1), ("red", 1.3), (" fox", 1)]],
    "a (red: 1.3 ) fox": [[("a ", 1), ("red", 1.3), (" fox", 1)]],
    "(a (red:1.5) fox:1.2)": [[("a ", 1.2), ("red", 1.8), (" fox", 1.2)]],
    "((red:1.5), blue:1.2)": [[("red", 1.8), (", blue", 1.2)]],
    "(red:-1)": [[("red", -1)]],
    "(red:0)": [[("red", 0)]],
    "([red])": [[("red", 1)]],
    "a (red, [blue:1.2] fox": [[("a ", 1), ("red, ", 1.1), ("blue:1.2", 1), (" fox", 1.1)]],
    "unclosed (red": [[("unclosed ", 1), ("red", 1.1)]],
    "unclosed [red": [[("unclosed ", 1), ("red", 1 / 1.1)]],
    "unopened red) blue]": [[("unopened red) blue]", 1)]],
    "no weight: 1.3) here": [[("no weight: 1.3) here", 1)]],
    "time 12:30, (a:b:1.2)": [[("time 12:30, ", 1), ("a:b", 1.2)]],
    "(red:1.2.3)": [[("red:1.2.3)", 1.1)]],
    r"lux \(series\), \[a\], \\, \x": [[(r"lux (series), [a], \, \x", 1)]],
    "(a:1.2)(b:1.2)": [[("ab", 1.2)]],
    "a BREAK b": [[("a", 1)], [("b", 1)]],
    "a, BREAK\nBREAK b": [[("a,", 1)], [("", 1)], [("b", 1)]],
    "BREAK a": [[("", 1)], [("a", 1)]],
    "(a BREAK b:1.2) c": [[("a", 1.2)], [("b", 1.2), (" c", 1)]],
    "BREAKFAST break": [[("BREAKFAST break", 1)]],
    "(masterpiece), best quality, ((1girl)), [bad:0.5]": [
        [("masterpiece", 1.1), (", best quality, ", 1), ("1girl", 1.21), (", ", 1), ("bad:0.5", 1 / 1.1)]
    ],
}  # fmt: skip
COMFY = {
    "": [("", 1)],
    "a (red) fox": [("a ", 1), ("red", 1.1), (" fox", 1)],
    "a ((red)) fox": [("a ", 1), ("red", 1.21), (" fox", 1)],
    "a (red:1.3) fox": [("a ", 1), ("red", 1.3), (" fox", 1)],
    "(a (red:1.5) fox:1.2)": [("a ", 1.2), ("red", 1.5), (" fox", 1.2)],
    "(a (red) fox:1.2)": [("a ", 1.2), ("red", 1.32), (" fox", 1.2)],
    "a [red] BREAK fox": [("a [red] BREAK fox", 1)],
    r"lux \(series\), \[a\]": [(r"lux (series), \[a\]", 1)],
    "(red:a)": [("red:a", 1.1)],
    "(:1.3)": [(":1.3", 1.1)],
    "(red:1e1)": [("red", 10)],
    "(red:nan)": [("red:nan", 1.1)],
    "a (red": [("a (red", 1)],
    "red) (blue)": [("red) (blue)", 1)],
}


def rounded(sections: list[list[Part]]) -> list[list[tuple[str, float]]]:
    return [[(part.text, round(part.weight, 9)) for part in section] for section in sections]


@pytest.mark.parametrize("prompt", A1111, ids=ascii)
def test_a1111(prompt: str) -> None:
    expected = [[(text, round(weight, 9)) for text, weight in section] for section in A1111[prompt]]
    assert rounded(read_weights(prompt, "a1111")) == expected


@pytest.mark.parametrize("prompt", COMFY, ids=ascii)
def test_comfy(prompt: str) -> None:
    assert rounded(read_weights(prompt, "comfy")) == [[(text, round(weight, 9)) for text, weight in COMFY[prompt]]]


@pytest.mark.parametrize("rule", ["a1111", "comfy"])
def test_deep_brackets(rule: str) -> None:
    """A prompt of 20,000 characters is the longest that an order takes."""
    started = time.process_time()
    for prompt in ("(" * 9_000 + "red:0)" + ")" * 9_000, "(a" * 10_000, "[a" * 9_000 + ")]" * 1_000, "((" * 10_000):
        read_weights(prompt, rule)
    assert time.process_time() - started < 10

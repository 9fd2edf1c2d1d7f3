"""Prompts that change from step to step."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import groupby

import numpy as np
import pytest

from lorablend.engine import Pipeline
from lorablend.engine.prompt.editing import texts_by_step

# prompt -> the text up to each step, of 10
CASES = {
    "a fox": {10: "a fox"},
    "a [fox:3]": {3: "a ", 10: "a fox"},
    "a [fox: 3 ]": {3: "a ", 10: "a fox"},
    "a [[[b]]:2]": {2: "a ", 10: "a [[b]]"},
    "[(a:2):3]": {3: "", 10: "(a:2)"},
    "a [b : c : 1] d": {1: "a b  d", 10: "a  c  d"},
    "a[b:[c:d:2]:1]e": {1: "abe", 2: "ace", 10: "ade"},
    "a [b:.5] c": {5: "a  c", 10: "a b c"},
    "a [b::0.25]": {2: "a b", 10: "a "},
    "[a:b:1.0]": {10: "a"},
    "[a:b:1]": {1: "a", 10: "b"},
    "[a:b:20]": {10: "a"},
    "[a:b:0]": {10: "b"},
    "[a:b:-1]": {10: "b"},
    "a [unbalanced": {10: "a [unbalanced"},
    "((a][:b:c [d:3]": {3: "((a][:b:c ", 10: "((a][:b:c d"},
    "[fe|]male": {1: "female", 2: "male", 3: "female", 4: "male"},
    "[a|(b:1.1)]": {1: "a", 2: "(b:1.1)", 3: "a"},
    "[fe|||]male": {1: "female", 4: "male", 5: "female"},
    "[a|[b:c:2]]": {1: "a", 2: "b", 3: "a", 4: "c"},
    "(a [red:blue:5]:1.3)": {5: "(a red:1.3)", 10: "(a blue:1.3)"},
    "[a:b:c:5], [red], [time: now]": {10: "[a:b:c:5], [red], [time: now]"},
    r"\[a:b:5\], [x\]y:5]": {5: r"\[a:b:5\], ", 10: r"\[a:b:5\], x\]y"},
}


@pytest.mark.parametrize("prompt", CASES, ids=ascii)
def test_texts(prompt: str) -> None:
    texts = texts_by_step(prompt, 10)
    assert len(texts) == 10
    changes, step = {}, 0
    for text, group in groupby(texts):
        step += len(list(group))
        changes[step] = text
    expected = CASES[prompt]
    assert {step: text for step, text in changes.items() if step in expected} == expected
    if 10 in expected:
        assert changes == expected


def test_deep_and_long_prompts() -> None:
    """Of 20,000 characters, as long as an order's may be."""
    started = time.process_time()
    for prompt in ("[" * 10_000 + "]" * 10_000, "[a:" * 5_000 + ":1]" * 1_600, "[a|b]" * 4_000, "[" * 20_000):
        assert len(texts_by_step(prompt, 20)) == 20
    assert time.process_time() - started < 10


def test_pictures(pipeline: Pipeline, make_pipeline: Callable[..., Pipeline]) -> None:
    """A prompt that changes before the first step or after the last draws the same bytes as a plain one."""

    def draw(prompt: str, negative: str = "cat", **settings: object) -> np.ndarray:
        settings = {"steps": 4, "seed": 1, **settings}
        return np.array(pipeline.generate(prompt, negative, **settings).images[0])  # pyright: ignore[reportArgumentType]

    plain = {text: draw(f"a {text}") for text in ("fox", "cat")}
    assert draw("a [fox:cat:4]").tobytes() == plain["fox"].tobytes()
    assert draw("a [fox:cat:0]").tobytes() == plain["cat"].tobytes()
    assert draw("a [fox|fox]").tobytes() == plain["fox"].tobytes()
    changing = [draw("a [fox:cat:2]"), draw("a [fox|cat]"), draw("a fox", "[cat:2]"), *plain.values()]
    assert len({picture.tobytes() for picture in changing}) == 5
    first, second = draw("a [fox:cat:0.5]", steps=1), draw("a cat", steps=1)
    assert first.tobytes() == second.tobytes()

    for blend in (
        [("kohya_text", 1.0)],
        {"mode": "sum", "items": [{"adapter": "peft", "weight": 1.0, "mask": [0, 0, 0.5, 1]}]},
    ):
        steered = [draw(prompt, blend=blend) for prompt in ("a fox", "a [fox:cat:4]", "a [fox:cat:2]")]
        assert steered[0].tobytes() == steered[1].tobytes() != steered[2].tobytes()


def test_the_other_rule_has_none(pipeline: Pipeline) -> None:
    """In ComfyUI it is plain text."""
    one, other = (
        np.array(pipeline.generate(prompt, steps=1, seed=1, prompt_rule="comfy").images[0])
        for prompt in ("a [fox:cat:0]", "a cat")
    )
    assert one.tobytes() != other.tobytes()

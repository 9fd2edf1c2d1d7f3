"""Where long prompts are cut."""

from __future__ import annotations

import numpy as np
import pytest

from lorablend.engine.prompt.chunks import Group, Token, make_chunks

COMMA = 9


def words(text: str) -> Group:
    """A token for each letter; a comma is one too."""
    return [Token(COMMA if letter == "," else ord(letter)) for letter in text]


def vectors(count: int) -> Group:
    return [Token(0, vector=np.zeros(4, np.float32)) for _ in range(count)]


def lengths(rule: str, *sections: list[Group], length: int = 30) -> list[int]:
    return [len(chunk) for chunk in make_chunks(sections, length, COMMA, rule)]


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ([[words("")]], [0]),
        ([[words("a" * 30)]], [30]),
        ([[words("a" * 31)]], [30, 1]),
        ([[words("a" * 14 + "," + "b" * 20)]], [15, 20]),  # back to the comma, which stays
        ([[words("a" * 10 + "," + "b" * 25)]], [11, 25]),  # 20 tokens back is near enough
        ([[words("a" * 9 + "," + "b" * 25)]], [30, 5]),  # 21 is not
        ([[words("a" * 29 + "," + "b")]], [30, 1]),
        ([[words("a" * 20 + "," + "b" * 9 + ",")]], [30, 1]),  # a comma itself is never moved
        ([[words("a" * 20 + ","), words("b" * 12)]], [21, 12]),  # across parts of other weights
        ([[words("a" * 20 + ",")], [words("b" * 12)]], [21, 12]),  # BREAK
        ([[words("a")], [words("")]], [1]),  # nothing behind a BREAK
        ([[words("")], [words("a")]], [0, 1]),
        ([[words("a")], [words("")], [words("b")]], [1, 0, 1]),
        ([[words("a" * 28), vectors(3), words("b")]], [28, 4]),  # vectors of one name stay together
        ([[vectors(65)]], [0, 30, 30, 5]),
    ],
)
def test_a1111(sections: list[list[Group]], expected: list[int]) -> None:
    assert lengths("a1111", *sections) == expected


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([words("")], [0]),
        ([words("a" * 31)], [30, 1]),
        ([words("a" * 14 + "," + "b" * 20)], [30, 5]),
        ([words("a" * 26), words("b" * 7)], [26, 7]),  # a short part is not divided
        ([words("a" * 26), words("b" * 8)], [30, 4]),
        ([words("a" * 30), words("b" * 70)], [30, 30, 30, 10]),
        ([words("a" * 28), vectors(3), words("b")], [28, 4]),
    ],
)
def test_comfy(groups: list[Group], expected: list[int]) -> None:
    assert lengths("comfy", groups) == expected


@pytest.mark.parametrize("rule", ["a1111", "comfy"])
def test_nothing_is_lost(rule: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        groups = [words("".join(rng.choice(list("ab,"), size=rng.integers(0, 50)))) for _ in range(rng.integers(1, 8))]
        chunks = make_chunks([groups], 75, COMMA, rule)
        assert [token for chunk in chunks for token in chunk] == [token for group in groups for token in group]
        assert all(len(chunk) <= 75 for chunk in chunks)

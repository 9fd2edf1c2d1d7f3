"""Captions: alternatives, the trigger word, wildcards, shuffled tags, and captions in names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorablend.train.data.captions import VARIANTS, caption_variants, read_captions, with_trigger, words_of_name


def variants(*captions: str, trigger: str | None = None, shuffle: bool = False, keep: int = 0, seed: int = 0):
    return caption_variants(captions, trigger, shuffle=shuffle, keep_tokens=keep, seed=seed)


def test_lines_are_alternatives() -> None:
    assert read_captions(" a  fox\r\n\n in snow \na fox\n") == ("a fox", "in snow")
    assert read_captions(" \n") == ()


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a fox", "sks, a fox"),
        ("a photo of SKS fox", "a photo of SKS fox"),
        ("sksy fox", "sks, sksy fox"),
        ("a [Trigger] in snow, [trigger]", "a sks in snow, sks"),
        ("", "sks"),
    ],
)
def test_trigger(caption: str, expected: str) -> None:
    assert with_trigger(caption, "sks") == expected
    assert with_trigger(caption, None) == caption


def test_trigger_with_signs_that_patterns_know() -> None:
    assert with_trigger("a [trigger]", r"c++ \1") == r"a c++ \1"
    assert with_trigger("a c++ book", "c++") == "a c++ book"


def test_plain_captions_stay_as_they_are() -> None:
    assert variants("a fox, in snow", "a hare") == ("a fox, in snow", "a hare")
    assert variants() == ("",)
    assert variants(trigger="sks") == ("sks",)


def test_wildcards() -> None:
    assert {*variants("a {red|blue} fox")} == {"a red fox", "a blue fox"}
    assert {*variants("{a|{b|c} d}")} == {"a", "b d", "c d"}
    assert variants("{{a|b}}, {c}") == ("{a|b}, {c}",)
    assert {*variants("a { |very }red fox")} <= {"a red fox", "a veryred fox"}


def test_shuffled_tags_stay_the_same_tags() -> None:
    tags = "a, b, c, d, e"
    texts = variants(tags, shuffle=True, keep=2)
    assert 2 <= len(texts) <= 6
    assert all(text.startswith("a, b, ") and sorted(text.split(", ")) == [*"abcde"] for text in texts)
    assert len(variants(", ".join("abcdefgh"), shuffle=True)) == VARIANTS
    assert variants("one sentence only", shuffle=True) == ("one sentence only",)


def test_separator_for_tags_that_stay() -> None:
    assert variants("sks, fox ||| red, big ||| best") == ("sks, fox, red, big, best",)
    texts = variants("sks, fox ||| red, big, old ||| best", shuffle=True, keep=9)
    assert len(texts) > 1
    assert all(text.startswith("sks, fox, ") and text.endswith(", best") for text in texts)


def test_trigger_is_first_after_shuffling() -> None:
    assert all(text.startswith("sks, ") for text in variants("a, b, c", trigger="sks", shuffle=True))
    assert all(text.count("sks") == 1 for text in variants("a, sks, c", trigger="sks", shuffle=True))


@given(st.text(alphabet="ab{}|, []", max_size=40), st.booleans(), st.integers(0, 5))
def test_pure_and_without_end_to_any_text(caption: str, shuffle: bool, seed: int) -> None:
    texts = variants(caption, trigger="t", shuffle=shuffle, seed=seed)
    assert texts == variants(caption, trigger="t", shuffle=shuffle, seed=seed)
    assert 1 <= len(texts) <= VARIANTS


def test_known_by_the_text_alone() -> None:
    """The first of two pictures does not change what the second gets."""
    both = variants("a, b, c, d", "e, f, g, h", shuffle=True, seed=3)
    assert both == (*variants("a, b, c, d", shuffle=True, seed=3), *variants("e, f, g, h", shuffle=True, seed=3))
    assert both != variants("a, b, c, d", "e, f, g, h", shuffle=True, seed=4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a_small-red boat (2)", "a small-red boat"),
        ("red-boat-03", "red boat"),
        ("12 foxes in snow 004", "foxes in snow"),
        ("watercolor", "watercolor"),
        ("IMG_2034", ""),
        ("DSC0001", ""),
        ("2024-01-03 10.22.15", ""),
        ("Screenshot 2024-01-03 at 10", ""),
        ("3f2a9c81d7e04b65", ""),
        ("x", ""),
        ("", ""),
    ],
)
def test_words_of_names(name: str, words: str) -> None:
    assert words_of_name(name) == words

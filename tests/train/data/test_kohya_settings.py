"""Every setting of a kohya data set file: what it does here, or where it is said that it does nothing."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from lorablend.train.data.captions import caption_variants, lines_of
from lorablend.train.data.examples import Example
from lorablend.train.data.layouts import DataSet, find_examples
from lorablend.train.data.tag_order import OrderedCaption, expanded, ordered
from tests.train.data.data_files import clean, pattern, save

# Every name in the schemas of sd-scripts' library/config_util.py, and of its forks' data sets.
KOHYA = """
image_dir metadata_file conditioning_data_dir num_repeats class_tokens is_reg caption_extension cache_info alpha_mask
caption_prefix caption_suffix keep_tokens_separator secondary_separator enable_wildcard
shuffle_caption caption_separator keep_tokens color_aug flip_aug face_crop_aug_range random_crop token_warmup_min
token_warmup_step caption_dropout_rate caption_dropout_every_n_epochs caption_tag_dropout_rate custom_attributes
batch_size bucket_no_upscale bucket_reso_steps enable_bucket max_bucket_reso min_bucket_reso resolution
network_multiplier resize_interpolation skip_image_resolution validation_seed validation_split multires_training
""".split()  # noqa: SIM905

DONE: dict[str, Any] = {  # with a value that changes what is read
    "image_dir": "other",
    "metadata_file": "list.json",
    "conditioning_data_dir": "masks",
    "num_repeats": 7,
    "class_tokens": "sks cat",
    "is_reg": True,
    "caption_extension": ".caption",
    "alpha_mask": True,
    "caption_prefix": "photo of",
    "caption_suffix": "at night",
    "keep_tokens_separator": "///",
    "secondary_separator": ";;;",
    "enable_wildcard": True,
}
NO_EFFECT = {"cache_info": True}  # only about files that kohya writes for itself
SAID = set(KOHYA) - DONE.keys() - NO_EFFECT.keys()

CAPTION = "red;;;boat /// sea, {sky} /// end"


def described(data: Path, **settings: Any) -> DataSet:
    """A data set of one picture, with these settings."""
    save(data / "img" / "a.png", 1, caption=CAPTION)
    clear = pattern(5)
    clear.putalpha(pattern(6).convert("L"))
    clear.save(data / "img" / "b.png")
    (data / "img" / "b.caption").write_text("an old cat")
    save(data / "other" / "c.png", 2, caption="other")
    save(data / "masks" / "a.png", 3)
    (data / "list.json").write_text(json.dumps({"img/a": {"caption": "listed"}}))
    lines = {"image_dir": "img", **settings}
    text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in lines.items())
    (data / "set.toml").write_text(f"[[datasets]]\n[[datasets.subsets]]\n{text}\n")
    return clean(find_examples(data / "set.toml"))


def test_every_setting_has_a_verdict() -> None:
    assert len(KOHYA) == len(set(KOHYA)) == len(DONE) + len(NO_EFFECT) + len(SAID)


@pytest.mark.parametrize("setting", DONE)
def test_a_setting_that_is_done(data: Path, setting: str) -> None:
    plain, changed = described(data), described(data, **{setting: DONE[setting]})
    assert changed.examples != plain.examples
    assert not any(setting in note for note in changed.notes)


@pytest.mark.parametrize("setting", sorted(SAID))
def test_a_setting_that_is_said(data: Path, setting: str) -> None:
    plain, changed = described(data), described(data, **{setting: 1})
    assert changed.examples == plain.examples
    assert f"set.toml: {setting} are settings of the training, not read from there" in changed.notes


def test_a_setting_without_effect(data: Path) -> None:
    plain = described(data)
    assert described(data, **NO_EFFECT) == plain


def test_a_setting_that_kohya_does_not_have(data: Path) -> None:
    assert "set.toml: captoin_prefix are not settings of kohya's data sets, left out" in (
        described(data, captoin_prefix="x").notes
    )


def forms(dataset: DataSet, *, shuffle: bool = False) -> set[str]:
    (example,) = [example for example in dataset.examples if example.path.name == "a.png"]
    return set(caption_variants(example.captions, None, shuffle=shuffle, keep_tokens=0, seed=0))


@pytest.mark.parametrize("where", ["general", "datasets", "subset"])
def test_nothing_trains_on_the_signs(data: Path, where: str) -> None:
    save(data / "img" / "a.png", 1, caption=CAPTION)
    lines = "keep_tokens_separator = '///'\nsecondary_separator = ';;;'\nenable_wildcard = true\n"
    places = {place: lines if place == where else "" for place in ("general", "datasets", "subset")}
    (data / "set.toml").write_text(
        f"[general]\n{places['general']}[[datasets]]\n{places['datasets']}"
        f"[[datasets.subsets]]\nimage_dir = 'img'\n{places['subset']}"
    )
    dataset = clean(find_examples(data / "set.toml"))
    assert dataset.examples[0].captions == ("red, boat, sea, sky, end",)
    assert forms(dataset) == {"red, boat, sea, sky, end"}
    assert forms(dataset, shuffle=True) == {"red, boat, sea, sky, end", "red, boat, sky, sea, end"}


@pytest.mark.parametrize(
    ("caption", "keep", "group", "plain", "shuffled"),
    [
        # keep_tokens_separator: before the first sign and after the second one, tags stay where they are
        ("1girl, frieren, ||| boots, hat", "|||", "", "1girl, frieren, boots, hat", ["boots, hat", "hat, boots"]),
        ("||| boots, hat", "|||", "", "boots, hat", ["boots, hat", "hat, boots"]),
        ("a /// b, c /// d, e", "///", "", "a, b, c, d, e", ["b, c", "c, b"]),
        ("a /// b /// c /// d", "///", "", "a, b, c /// d", ["b"]),  # kohya knows two of them
        # secondary_separator: tags that stay together
        ("red;;;boat, sea", "", ";;;", "red, boat, sea", ["red, boat, sea", "sea, red, boat"]),
        ("a ;;; b;;;c", "", ";;;", "a, b, c", ["a, b, c"]),
        ("x /// red;;;boat, sea", "///", ";;;", "x, red, boat, sea", ["red, boat, sea", "sea, red, boat"]),
    ],
)
def test_the_order_of_tags(caption: str, keep: str, group: str, plain: str, shuffled: list[str]) -> None:
    read = ordered(caption, keep, group)
    assert str(read) == plain
    assert caption_variants([read], None, shuffle=False, keep_tokens=0, seed=0) == (plain,)
    texts = caption_variants([read], None, shuffle=True, keep_tokens=0, seed=0)
    assert set(texts) == {plain.replace(shuffled[0], order) for order in shuffled}
    assert pickle.loads(pickle.dumps(read)) == read


@pytest.mark.parametrize(
    ("settings", "caption"),
    [
        ({}, "red;;;boat /// sea, {sky} /// end"),
        ({"caption_separator": "///"}, "red;;;boat /// sea, {sky} /// end"),
        ({"caption_separator": "///", "shuffle_caption": True}, "red;;;boat, sea, {sky}, end"),
        ({"caption_separator": "///", "caption_tag_dropout_rate": 0.1}, "red;;;boat, sea, {sky}, end"),
        ({"caption_separator": ";;;", "token_warmup_step": 5}, "red, boat /// sea, {sky} /// end"),
        ({"caption_separator": ",", "shuffle_caption": True}, "red;;;boat /// sea, {sky} /// end"),
    ],
)
def test_a_separator_of_tags(data: Path, settings: dict[str, Any], caption: str) -> None:
    """kohya writes commas in its place, but only where it moves tags."""
    assert described(data, **settings).examples[0].captions == (caption,)


def test_keep_tokens_counts_groups_if_no_sign_says_how_many() -> None:
    texts = caption_variants([ordered("a;;;b, c, d", "", ";;;")], None, shuffle=True, keep_tokens=1, seed=0)
    assert set(texts) == {"a, b, c, d", "a, b, d, c"}
    texts = caption_variants([ordered("a /// b, c, d", "///", "")], None, shuffle=True, keep_tokens=3, seed=0)
    assert len(set(texts)) == 6


def test_a_caption_without_the_signs_stays_as_it_is() -> None:
    for caption in ("a,b ;; c", ""):
        assert ordered(caption, "|||", ";;;") is caption
        assert ordered(caption, "", "") is caption


@pytest.mark.parametrize(
    ("first", "moving", "last", "text"),
    [
        (("a",), ("b", "c"), (), "a ||| b, c"),
        ((), ("b",), ("d",), " ||| b ||| d"),
        (("a",), ("b",), ("d",), "a ||| b ||| d"),
        ((), ("b", "c"), (), "b, c"),
    ],
)
def test_a_caption_file_keeps_the_places(
    first: tuple[str, ...], moving: tuple[str, ...], last: tuple[str, ...], text: str
) -> None:
    caption = OrderedCaption(first, moving, last)
    assert lines_of(Example(Path("a.png"), (caption,), 1, (96, 96), None)) == [text]
    assert caption_variants([text.strip()], None, shuffle=False, keep_tokens=0, seed=0) == (str(caption),)


@pytest.mark.parametrize(
    ("caption", "choices"),
    [
        ("a {red|blue} boat", ("a red boat", "a blue boat")),
        ("a {red} boat", ("a red boat",)),
        ("{a|b} {c|d}", ("a c", "a d", "b c", "b d")),
        ("{a| {b|c} }", ("a", "b", "c")),
        ("{{a|b}} {c| d }", ("{{a|b}} c", "{{a|b}} d")),
        ("a {|very } big boat", ("a big boat", "a very big boat")),
        ("no wildcard", ("no wildcard",)),
        ("{a|b|c|d|e} {a|b|c|d|e}", ("{a|b|c|d|e} {a|b|c|d|e}",)),  # too many, chosen in training
    ],
)
def test_wildcards(caption: str, choices: tuple[str, ...]) -> None:
    assert set(expanded(caption, 16)) == set(choices)

"""Several lists of adapters made into one."""

from __future__ import annotations

import json
import time

import pytest

from lorablend.app.pictures.metadata.found import Mention
from lorablend.app.pictures.metadata.mentions import from_pairs, from_resources, unite
from lorablend.app.pictures.metadata.programs import read_named
from lorablend.app.pictures.metadata.texts import Texts


def test_earlier_lists_win_and_later_ones_fill_in() -> None:
    tags = [Mention(name="a", weight=1.0), Mention(name="a", weight=0.5)]
    weights = [Mention(name="a", weight=9.0), Mention(name="b", weight=0.25)]
    hashes = [Mention(name="b", digest="0123456789ab"), Mention(name="c", digest="abcdef012345")]
    assert unite(tags, weights, hashes) == [
        Mention(name="a", weight=1.0),
        Mention(name="a", weight=0.5),
        Mention(name="b", weight=0.25, digest="0123456789ab"),
        Mention(name="c", digest="abcdef012345"),
    ]


def test_names_as_lists_spell_them() -> None:
    """A1111's hash list has no colons and commas; our own tags have underscores; some lists have endings."""
    assert unite([Mention(name="neon: glow", weight=1.0)], [Mention(name="neon_glow.safetensors")]) == [
        Mention(name="neon: glow", weight=1.0)
    ]
    assert len(unite([Mention(name="a-b", weight=1.0)], [Mention(name="a_b")])) == 2
    assert len(unite([Mention(name="Ink", weight=1.0)], [Mention(name="ink")])) == 2


def test_titles_of_an_image_site() -> None:
    """One with the weight of a file is that file; each file is taken once; a hash says it without a weight."""
    files = [Mention(name="a", weight=0.5), Mention(name="b", weight=0.5), Mention(name="c", digest="0123456789ab")]
    titles = [
        Mention(name="A style", weight=0.5, is_file=False),
        Mention(name="Another", weight=0.5, is_file=False),
        Mention(name="A third", weight=0.5, is_file=False),
        Mention(name="Sea", weight=0.75, is_file=False, digest="0123456789"),
    ]
    united = unite(files, titles)
    assert [(mention.name, mention.weight) for mention in united] == [
        ("a", 0.5),
        ("b", 0.5),
        ("c", 0.75),
        ("A third", 0.5),
    ]


def test_pairs() -> None:
    assert list(from_pairs("a: 0.5, b: 0123456789ab, c: 0123456789ab: 0.25, d, None: 1, e: much")) == [
        Mention(name="a", weight=0.5),
        Mention(name="b", digest="0123456789ab"),
        Mention(name="c", weight=0.25, digest="0123456789ab"),
        Mention(name="d"),
        Mention(name="e"),
    ]


def test_pairs_in_json() -> None:
    assert list(from_pairs('{"a": 0.5, "b": "0123456789ab"}')) == [
        Mention(name="a", weight=0.5),
        Mention(name="b", digest="0123456789ab"),
    ]


def test_resources() -> None:
    entries = [
        {"type": "checkpoint", "modelVersionId": 1},
        {"type": "LORA", "name": "a.safetensors", "weight": "0.5", "hash": "0123456789"},
        {"type": "DoRA", "modelName": "B", "strength": 1, "strengthClip": 0.5},
        {"type": "lora", "modelVersionId": 3, "weight": 1},
        {"name": "urn:air:sdxl:lora:civitai:4@5", "weight": 1},
        {"type": "lora"},
        "no entry",
    ]
    assert list(from_resources(entries)) == [
        Mention(name="a", weight=0.5, digest="0123456789"),
        Mention(name="B", weight=1.0, fields={"text_encoder": 0.5}, is_file=False),
        Mention(name="Civitai version 3", weight=1.0, is_file=False),
        Mention(name="urn:air:sdxl:lora:civitai:4@5", weight=1.0, is_file=False),
        Mention(name="without a name", is_file=False),
    ]


def test_long_lists_take_no_time() -> None:
    mentions = [Mention(name=f"adapter {number}", weight=1.0) for number in range(20_000)]
    before = time.process_time()
    assert unite(mentions, mentions) == mentions
    assert time.process_time() - before < 5


@pytest.mark.parametrize("inside", [" " * 50_000, "ink," + " " * 50_000, "ink" + " " * 50_000])
def test_a_bracket_that_is_never_closed(inside: str) -> None:
    """It is read once, not once for each of its spaces."""
    found = read_named(Texts({"Dream": f'"a boat withLora({inside}" -s 4'}), "a", (64, 64))
    assert found.settings["steps"] == 4
    assert "blend" not in found.settings


def test_spaces_in_invokes_adapters() -> None:
    found = read_named(Texts({"Dream": '"a boat withLora( ink , 0.5 ) withLora(neon)" -s 4'}), "a", (64, 64))
    assert found.settings["blend"]["items"] == [{"adapter": "ink", "weight": 0.5}, {"adapter": "neon", "weight": 1.0}]


def test_a_stack_of_thousands() -> None:
    """Each input of a node is looked at once, not once for each other."""
    count = 10_000
    stack = {f"lora_name_{number}": f"a{number}.safetensors" for number in range(count)}
    stack |= {f"model_weight_{number}": number / count for number in range(count)}
    graph = {
        "1": {"class_type": "KSampler", "inputs": {"model": ["2", 0], "positive": ["3", 0], "negative": ["3", 0]}},
        "2": {"class_type": "CR LoRA Stack", "inputs": stack},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "a boat"}},
    }
    found = read_named(Texts({"prompt": json.dumps(graph)}), "a", (64, 64))
    items = found.settings["blend"]["items"]
    assert len(items) == count
    assert items[7] == {"adapter": "a7", "weight": 7 / count}

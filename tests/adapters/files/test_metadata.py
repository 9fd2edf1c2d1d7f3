"""Trigger words, hashes and the report."""

import hashlib
import json
from pathlib import Path

import pytest

from lorablend.adapters import inspect_adapter, load_adapter
from tests.adapter_files import SDXL_SHAPES, random_factors, write_kohya

ONE_MODULE = dict(list(SDXL_SHAPES.items())[:1])


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, []),
        ({"modelspec.trigger_phrase": "ink drawing, , bold lines"}, ["ink drawing", "bold lines"]),
        ({"modelspec.trigger_phrase": "ink", "ss_tag_frequency": '{"x": {"fox": 9}}'}, ["ink"]),
        ({"modelspec.trigger_phrase": "None", "ss_tag_frequency": '{"x": {"fox": 9}}'}, ["fox"]),
        ({"ss_tag_frequency": '{"a": {"fox": 2, "cat": 3}, "b": {" fox": 2, "dog": 2}}'}, ["fox", "cat", "dog"]),
        (
            {"ss_tag_frequency": '{"a": {"at sunset": 19, "in ink style": 40, "the fox": 20}}'},
            ["in ink style", "the fox"],
        ),
        (
            {"ss_tag_frequency": json.dumps({"a": {f"tag{n}": 100 - n for n in range(50)}})},
            [f"tag{n}" for n in range(5)],
        ),
        ({"ss_tag_frequency": "{"}, []),
        ({"ss_tag_frequency": "[" * 100_000}, []),
        ({"ss_tag_frequency": "[1]"}, []),
        ({"ss_tag_frequency": '{"x": {"fox": 9}, "y": "' + "y" * 10_000_000 + '"}'}, []),  # not parsed at all
        ({"modelspec.trigger_phrase": "a," * 1_000_000}, ["a"] * 5000),
        ({"ss_tag_frequency": '{"a": [1], "b": {"fox": "many", "cat": 1, "": 9}}'}, ["cat"]),
    ],
    ids=range(13),
)
def test_trigger_words(tmp_path: Path, metadata: dict[str, str], words: list[str]) -> None:
    assert (
        load_adapter(write_kohya(tmp_path / "x", random_factors(ONE_MODULE), metadata=metadata)).trigger_words == words
    )


def test_hashes(tmp_path: Path) -> None:
    path = write_kohya(tmp_path / "x", random_factors(ONE_MODULE), metadata={"a": "b"})
    other = write_kohya(tmp_path / "y", random_factors(ONE_MODULE), metadata={"a": "another"})
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    adapter = load_adapter(path)
    assert adapter.sha256 == hashlib.sha256(content).hexdigest()
    assert adapter.autov2 == adapter.sha256[:10]
    assert adapter.autov3 == hashlib.sha256(content[header:]).hexdigest()[:12]
    assert load_adapter(other).autov3 == adapter.autov3
    assert load_adapter(other).autov2 != adapter.autov2


def test_the_report(tmp_path: Path) -> None:
    metadata = {"modelspec.title": "Ink", "modelspec.trigger_phrase": "ink"}
    factors = random_factors(rank=4, alpha=2) | random_factors(ONE_MODULE, rank=2)
    adapter = load_adapter(write_kohya(tmp_path / "ink.safetensors", factors, dtype="BF16", metadata=metadata))
    report = inspect_adapter(adapter)
    assert json.loads(json.dumps(report)) == report
    components = report.pop("components")
    assert report == {
        "name": "ink",
        "file": "ink.safetensors",
        "size": adapter.size,
        "title": "Ink",
        "base_model": "sdxl",
        "algorithms": {"lora": 12},
        "biases": {},
        "embeddings": {},
        "trigger_words": ["ink"],
        "tensor_count": 35,
        "covered": 35,
        "ignored": [],
        "refused": [],
        "warnings": [],
        "hashes": {"sha256": adapter.sha256, "autov2": adapter.autov2, "autov3": adapter.autov3},
    }
    assert list(components) == ["unet", "text_encoder", "text_encoder_2"]
    assert components["text_encoder_2"] == {
        "modules": ["text_model.encoder.layers.0.self_attn.v_proj", "text_model.encoder.layers.1.mlp.fc2"],
        "ranks": [4],
        "alphas": [2.0],
        "scales": [0.5],
        "dtypes": ["bf16"],
    }
    assert (components["unet"]["ranks"], components["unet"]["alphas"]) == ([2, 4], [None, 2.0])
    assert len(components["unet"]["modules"]) == 7

"""Resized files, compared to LAPACK's SVD."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError, RequestError
from lorablend.adapters.tools.resize import resize
from tests.adapter_files import kohya_key, message_of, write_tensors
from tests.adapters.tools.tool_files import CONV, TO_Q, flat_deltas, largest_error, locon, lora, truncated


def test_to_a_rank(tmp_path: Path) -> None:
    a = locon(tmp_path / "a.safetensors", 1, rank=8)
    report = resize(a, tmp_path / "b.safetensors", rank=3)
    expected = {module: truncated(delta, 3) for module, delta in flat_deltas(a).items()}
    resized = flat_deltas(load_adapter(tmp_path / "b.safetensors"))
    assert largest_error(resized, expected) < 1e-6  # float32
    for module, delta in flat_deltas(a).items():
        error = np.linalg.norm(resized[module] - delta) / np.linalg.norm(delta)
        assert report.errors[module] == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("keep", [0.6, 0.99])
def test_to_a_part(tmp_path: Path, keep: float) -> None:
    a = lora(tmp_path / "a.safetensors", 1, rank=8)
    report = resize(a, tmp_path / "b.safetensors", keep=keep)
    for module, delta in flat_deltas(a).items():
        kept = np.cumsum(np.linalg.svd(delta, compute_uv=False) ** 2)
        assert report.ranks[module] == 1 + int((kept < keep * kept[-1]).sum())
        assert report.errors[module] <= np.sqrt(1 - keep)
    limited = resize(a, tmp_path / "c.safetensors", rank=2, keep=keep)
    assert max(limited.ranks.values()) == 2


def test_another_algorithm_becomes_lora(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    key = kohya_key(TO_Q)
    shapes = {"hada_w1_a": (64, 2), "hada_w1_b": (2, 64), "hada_w2_a": (64, 2), "hada_w2_b": (2, 64)}
    tensors = {f"{key}.{role}": ("F32", random.normal(0, 0.3, shape).astype("f4")) for role, shape in shapes.items()}
    loha = load_adapter(write_tensors(tmp_path / "loha.safetensors", tensors))
    resize(loha, tmp_path / "lora.safetensors", rank=4)
    one = load_adapter(tmp_path / "lora.safetensors")
    assert one.deltas[TO_Q].algorithm == "lora"
    w1_a, w1_b, w2_a, w2_b = (tensors[f"{key}.{role}"][1].astype(np.float64) for role in shapes)
    expected = {TO_Q: (w1_a @ w1_b) * (w2_a @ w2_b)}
    assert largest_error(flat_deltas(one), expected) < 1e-6


def test_a_full_difference_needs_the_model(tmp_path: Path) -> None:
    difference = np.random.default_rng(3).normal(0, 0.1, (64, 32, 3, 3)).astype(np.float32)
    whole = load_adapter(write_tensors(tmp_path / "w.safetensors", {f"{kohya_key(CONV)}.diff": ("F32", difference)}))
    message = message_of(AdapterError, lambda: resize(whole, tmp_path / "b.safetensors", rank=4))
    assert message == (
        f"w: {' '.join(CONV)} is changed by full, which has no factors; give the model whose weights it changes"
    )
    resize(whole, tmp_path / "b.safetensors", rank=4, weights=lambda *_: np.zeros((64, 32, 3, 3), np.float32))
    expected = {CONV: truncated(difference.reshape(64, -1), 4)}
    assert largest_error(flat_deltas(load_adapter(tmp_path / "b.safetensors")), expected) < 1e-6


def test_metadata_is_kept(tmp_path: Path) -> None:
    metadata = {
        "ss_network_dim": "4",
        "ss_network_alpha": "2",
        "ss_training_comment": "my best",
        "ss_tag_frequency": '{"a": {"ink": 3}}',
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": "Ink",
        "sshs_legacy_hash": "12345678",
        "my own": "words",
    }
    a = lora(tmp_path / "a.safetensors", 1, metadata=metadata)
    resize(a, tmp_path / "b.safetensors", rank=2)
    b = load_adapter(tmp_path / "b.safetensors")
    written = dict(b.metadata)
    assert json.loads(written.pop("lorablend.made_by")) == {
        "tool": "resize",
        "rank": 2,
        "inputs": [{"name": "a", "sha256": a.sha256}],
    }
    assert written.pop("modelspec.hash_sha256") == f"0x{written.pop('sshs_model_hash')}"
    assert written == {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "2",
        "ss_network_alpha": "2",
        "ss_training_comment": "dimension is resized from 4 to 2; my best",
        "ss_tag_frequency": '{"a": {"ink": 3}}',
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": "b",
        "my own": "words",
    }
    resize(b, tmp_path / "c.safetensors", keep=0.9)
    again = load_adapter(tmp_path / "c.safetensors").metadata
    assert json.loads(again["lorablend.made_by"])["earlier"] == b.metadata["lorablend.made_by"]
    assert again["ss_training_comment"].startswith("dimension is resized from 2 to Dynamic; dimension")


def test_refusals(tmp_path: Path) -> None:
    a = lora(tmp_path / "a.safetensors", 1)
    bad: list[tuple[dict[str, Any], str]] = [
        ({}, "neither a rank nor a part to keep; give one of them, or both"),
        ({"rank": 5000}, "rank is 5000; give 1 to 4096"),
        ({"keep": 1.5}, "the part to keep is 1.5; give a number above 0 and at most 1"),
        ({"rank": 4, "dtype": "f8"}, "dtype is f8; give f32, f16 or bf16"),
    ]
    for settings, expected in bad:
        assert message_of(RequestError, lambda settings=settings: resize(a, tmp_path / "b", **settings)) == expected

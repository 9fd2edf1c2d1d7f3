"""Alpha, from each place where it may be stored."""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.wording import shown
from tests.adapter_files import Module, Stored, message_of, write_tensors

TO_Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
TO_K = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k"
FC1 = "text_model.encoder.layers.0.mlp.fc1"
RANK = 4


def tensors_of(*names: str, rank: int = RANK) -> dict[str, Stored]:
    tensors: dict[str, Stored] = {}
    for name in names:
        tensors[f"{name}.lora_A.weight"] = "F32", np.ones((rank, 6), np.float32)
        tensors[f"{name}.lora_B.weight"] = "F32", np.ones((8, rank), np.float32)
    return tensors


THREE = tensors_of(f"unet.{TO_Q}", f"unet.{TO_K}", f"text_encoder.{FC1}")


def scales(path: Path) -> dict[Module, tuple[float | None, float]]:
    return {module: (delta.alpha, delta.scale) for module, delta in load_adapter(path).deltas.items()}


def with_settings(tmp_path: Path, settings: Any, tensors: dict[str, Stored] = THREE) -> Path:
    text = settings if isinstance(settings, str) else json.dumps(settings)
    return write_tensors(tmp_path / "x.safetensors", tensors, {"lora_adapter_metadata": text})


def test_without_an_alpha_the_scale_is_1(tmp_path: Path) -> None:
    assert set(scales(write_tensors(tmp_path / "x", THREE)).values()) == {(None, 1.0)}


def test_the_factor_is_folded_into_up(tmp_path: Path) -> None:
    adapter = load_adapter(with_settings(tmp_path, {"unet.lora_alpha": 2}))
    factors = adapter.deltas["unet", TO_Q].factors()
    assert factors is not None
    assert (factors[0] == 1).all()
    assert (factors[1] == 0.5).all()


def test_settings_of_each_component(tmp_path: Path) -> None:
    settings = {"unet.lora_alpha": 8, "unet.r": 99, "text_encoder.lora_alpha": 1, "transformer.lora_alpha": 7}
    assert scales(with_settings(tmp_path, settings)) == {
        ("unet", TO_Q): (8, 2),
        ("unet", TO_K): (8, 2),
        ("text_encoder", FC1): (1, 0.25),
    }


def test_settings_without_a_component_apply_to_all(tmp_path: Path) -> None:
    assert set(scales(with_settings(tmp_path, {"lora_alpha": 8})).values()) == {(8, 2)}


def test_a_component_without_settings_has_scale_1(tmp_path: Path) -> None:
    assert scales(with_settings(tmp_path, {"unet.lora_alpha": 8}))["text_encoder", FC1] == (None, 1)


def test_a_tensor_comes_before_the_settings(tmp_path: Path) -> None:
    tensors = THREE | {f"unet.{TO_Q}.alpha": ("F32", np.float32(2).reshape(()))}
    numbers = scales(with_settings(tmp_path, {"unet.lora_alpha": 8}, tensors))
    assert numbers["unet", TO_Q] == (2, 0.5)
    assert numbers["unet", TO_K] == (8, 2)


@pytest.mark.parametrize(
    ("pattern", "to_q", "to_k", "fc1"),
    [
        ({"to_q": 2}, 2, 8, 8),
        ({"attn1.to_q": 2}, 2, 8, 8),
        ({"attn1\\.to_q": 2}, 2, 8, 8),
        ({TO_Q: 2}, 2, 8, 8),
        ({f"^{TO_Q}": 2}, 2, 8, 8),
        ({"^to_q": 2}, 8, 8, 8),
        ({"o_q": 2}, 8, 8, 8),
        ({"to_q$": 2}, 2, 8, 8),
        ({"to_q": 2, "attn1.to_q": 4}, 2, 8, 8),
        ({"attn1.to_q": 4, "to_q": 2}, 4, 8, 8),
        ({"attn1.*": 2}, 2, 2, 8),
        ({r"down_blocks\.\d+\.attentions.*\.to_(q|v)": 2}, 2, 8, 8),
        ({r".*attn1\.to_k": 2, "to_k": 4}, 8, 2, 8),
        ({"(?:to_k|to_q)": 2}, 2, 2, 8),
        ({"^down_blocks.*": 2}, 2, 2, 8),
        ({"^text_model.encoder.layers.0.mlp.fc1": 2}, 8, 8, 2),
        ({"^encoder.layers.0.mlp.fc1": 2}, 8, 8, 2),
        ({"layers.[0-9]+.mlp.fc1": 2}, 8, 8, 2),
    ],
)
def test_alpha_patterns_as_peft_matches_them(tmp_path: Path, pattern: dict[str, float], to_q, to_k, fc1) -> None:
    numbers = scales(with_settings(tmp_path, {"lora_alpha": 8, "alpha_pattern": pattern}))
    assert [alpha for alpha, _ in numbers.values()] == [to_q, to_k, fc1]
    assert [scale for _, scale in numbers.values()] == [to_q / RANK, to_k / RANK, fc1 / RANK]


def test_the_rank_is_the_tensors_own(tmp_path: Path) -> None:
    tensors = tensors_of(f"unet.{TO_Q}") | tensors_of(f"unet.{TO_K}", rank=16)
    settings = {"unet.r": 4, "unet.lora_alpha": 8, "unet.rank_pattern": {"to_k": 16}}
    assert list(scales(with_settings(tmp_path, settings, tensors)).values()) == [(8, 2), (8, 0.5)]


def test_rank_stabilised(tmp_path: Path) -> None:
    numbers = scales(
        with_settings(tmp_path, {"unet.lora_alpha": 8, "unet.use_rslora": True, "text_encoder.lora_alpha": 8})
    )
    assert numbers["unet", TO_Q] == (8, 8 / math.sqrt(RANK))
    assert numbers["text_encoder", FC1] == (8, 2)


@pytest.mark.parametrize("key", ["lora_alpha", "network_alpha", "alpha"])
def test_plain_metadata(tmp_path: Path, key: str) -> None:
    assert set(scales(write_tensors(tmp_path / "x", THREE, {key: "8.0"})).values()) == {(8, 2)}


@pytest.mark.parametrize("text", ["None", "Dynamic", "", "nan", "inf"])
def test_plain_metadata_that_is_not_a_number_is_ignored(tmp_path: Path, text: str) -> None:
    assert set(scales(write_tensors(tmp_path / "x", THREE, {"alpha": text})).values()) == {(None, 1)}


def test_pefts_own_two_files(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 8, "r": 4, "use_rslora": false, "alpha_pattern": {}}')
    names = tensors_of(f"base_model.model.{TO_Q}")
    assert list(scales(write_tensors(tmp_path / "adapter_model.safetensors", names)).values()) == [(8, 2)]
    assert list(scales(write_tensors(tmp_path / "other.safetensors", names)).values()) == [(None, 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "adapter_config.json is not valid JSON"),
        (b"\xff", "adapter_config.json cannot be read"),
        (b"[]", "adapter_config.json is not a JSON object"),
        (b" " * 2_000_001, "adapter_config.json is longer than 2000000 bytes"),
    ],
)
def test_a_broken_adapter_config_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "adapter_config.json").write_bytes(content)
    path = write_tensors(tmp_path / "adapter_model.safetensors", THREE)
    assert message_of(AdapterError, lambda: load_adapter(path)) == f"adapter_model.safetensors: {message}"


LOKR = {
    f"unet.{TO_Q}.lokr_w1": ("F32", np.ones((2, 3), np.float32)),
    f"unet.{TO_Q}.lokr_w2": ("F32", np.ones((4, 2), np.float32)),
}


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"r": 4, "alpha": 8}, 2),
        ({"r": 4, "alpha": 8, "rank_pattern": {"to_q": 16}}, 0.5),
        ({"r": 4, "alpha": 8, "alpha_pattern": {"to_q": 2}}, 0.5),
        ({"alpha": 8}, 1),
        ({"r": 0, "alpha": 8}, 1),
        ({"r": -4, "alpha": 8, "use_rslora": True}, 1),
    ],
)
def test_the_settings_rank_is_used_if_the_tensors_have_none(tmp_path: Path, settings: Any, scale: float) -> None:
    assert [factor for _, factor in scales(with_settings(tmp_path, settings, LOKR)).values()] == [scale]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 8, "r": "4"}, "metadata lora_adapter_metadata: r is 4; expected a finite number"),
        ({"alpha": 8, "rank_pattern": [1]}, "metadata lora_adapter_metadata: rank_pattern is not an object"),
        (
            {"alpha": 8, "rank_pattern": {"(a+)+": 1}},
            "metadata lora_adapter_metadata: rank_pattern (a+)+ is too complicated; use the modules' names",
        ),
    ],
)
def test_the_settings_rank_is_checked_only_if_it_is_used(tmp_path: Path, settings: Any, message: str) -> None:
    assert set(scales(with_settings(tmp_path, settings)).values()) == {(8, 2)}
    path = with_settings(tmp_path, settings, LOKR)
    assert message_of(AdapterError, lambda: load_adapter(path)) == f"x.safetensors: {message}"


def test_loha_and_lokr_call_it_alpha(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LOHA", "alpha": 8, "r": 2}')
    names = [f"base_model.model.{TO_Q}.hada_w{n}_{side}" for n in (1, 2) for side in "ab"]
    tensors = {name: ("F32", np.ones((6, 2) if name.endswith("a") else (2, 6), np.float32)) for name in names}
    assert list(scales(write_tensors(tmp_path / "adapter_model.safetensors", tensors)).values()) == [(8, 4)]


def test_a_scale_tensor_replaces_alpha_over_rank_and_a_scalar_multiplies(tmp_path: Path) -> None:
    tensors = tensors_of(f"unet.{TO_Q}") | {
        f"unet.{TO_Q}.alpha": ("F32", np.ones(1, np.float32)),
        f"unet.{TO_Q}.scale": ("F32", np.full(1, 3, np.float32)),
        f"unet.{TO_Q}.scalar": ("F32", np.full(1, 2, np.float32)),
    }
    assert list(scales(write_tensors(tmp_path / "x", tensors)).values()) == [(1, 6)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{", "metadata lora_adapter_metadata is not valid JSON"),
        ("[" * 100_000, "metadata lora_adapter_metadata is not valid JSON"),
        ("[]," * 666_667, "metadata lora_adapter_metadata is longer than 2000000 characters"),
        ("[]", "metadata lora_adapter_metadata is not a JSON object"),
        ({"lora_alpha": "8"}, "metadata lora_adapter_metadata: lora_alpha is 8; expected a finite number"),
        ({"lora_alpha": True}, "metadata lora_adapter_metadata: lora_alpha is True; expected a finite number"),
        ('{"lora_alpha": NaN}', "metadata lora_adapter_metadata: lora_alpha is nan; expected a finite number"),
        ({"alpha_pattern": [1]}, "metadata lora_adapter_metadata: alpha_pattern is not an object"),
        (
            {"alpha_pattern": {"to_q": None}},
            "metadata lora_adapter_metadata: alpha_pattern to_q is None; expected a finite number",
        ),
        ({"use_rslora": 1}, "metadata lora_adapter_metadata: use_rslora is 1; expected true or false"),
        (
            {"init_lora_weights": "pissa_niter_4"},
            "metadata lora_adapter_metadata: init_lora_weights is pissa_niter_4, which changes the base model too; "
            "save the adapter with path_initial_model_for_weight_conversion",
        ),
        ({"use_dora": True}, f"unet {TO_Q}: the settings have use_dora, but there is no magnitude tensor"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_settings_that_cannot_be_understood(tmp_path: Path, settings: Any, message: str) -> None:
    path = with_settings(tmp_path, settings)
    assert message_of(AdapterError, lambda: load_adapter(path)) == f"x.safetensors: {message}"


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b", "(a|b)+", ".*.*.*.*x", "(.|.)(.|.)(.|.)(.|.)x", "[a-z]*", "a{2}", "(", "a?", "x" + "[0-9]+" * 100,
    ],
)  # fmt: skip
def test_patterns_that_could_run_for_years_are_refused(tmp_path: Path, pattern: str) -> None:
    path = with_settings(tmp_path, {"alpha_pattern": {pattern: 1}})
    assert message_of(AdapterError, lambda: load_adapter(path)) == (
        "x.safetensors: metadata lora_adapter_metadata: "
        f"alpha_pattern {shown(pattern)} is too complicated; use the modules' names"
    )


def test_too_many_expressions_are_refused(tmp_path: Path) -> None:
    settings = {"alpha_pattern": {f"to_q{n}.*": 1 for n in range(33)}}
    path = with_settings(tmp_path, settings)
    assert message_of(AdapterError, lambda: load_adapter(path)) == (
        "x.safetensors: metadata lora_adapter_metadata: "
        "alpha_pattern to_q32.* is too complicated; use the modules' names"
    )


def test_an_integer_beyond_float64_is_not_an_alpha(tmp_path: Path) -> None:
    path = with_settings(tmp_path, '{"lora_alpha": 1' + "0" * 400 + "}")
    assert "; expected a finite number" in message_of(AdapterError, lambda: load_adapter(path))


def test_hundreds_of_patterns_are_quick(tmp_path: Path) -> None:
    names = [
        f"down_blocks.2.attentions.{i}.transformer_blocks.{j}.attn1.to_{k}"
        for i in (0, 1)
        for j in range(10)
        for k in "qkv"
    ]
    pattern = {f"^{name}": 2 for name in names} | {f"nowhere.{n}": 1 for n in range(20_000)}
    path = with_settings(tmp_path, {"alpha_pattern": pattern}, tensors_of(*(f"unet.{name}" for name in names)))
    begin = time.process_time()
    assert set(scales(path).values()) == {(2, 0.5)}
    assert time.process_time() - begin < 2

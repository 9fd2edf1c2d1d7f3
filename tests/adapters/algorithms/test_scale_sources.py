"""One adapter, said in every way that files have for alpha and rank; and two ways that disagree."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError
from tests.adapter_files import Stored, message_of, write_tensors
from tests.adapters.algorithms.deltas import normal

TO_Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
TO_K = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k"
RANK, ALPHA = 4, 6.0
FACTORS = {name: (normal(RANK, 6, seed=1), normal(8, RANK, seed=2)) for name in (TO_Q, TO_K)}


def tensors_of(alpha: float | None = None) -> dict[str, Stored]:
    tensors: dict[str, Stored] = {}
    for name, (down, up) in FACTORS.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = "F32", down
        tensors[f"base_model.model.{name}.lora_B.weight"] = "F32", up
        if alpha is not None:
            tensors[f"base_model.model.{name}.alpha"] = "F32", np.float32(alpha).reshape(())
    return tensors


def peft(*, stabilised: bool, **others: Any) -> dict[str, Any]:
    return {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "use_rslora": stabilised, **others}


def texts(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as plain entries of a header."""
    return {prefix + key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}


def ways(stabilised: bool) -> dict[str, tuple[dict[str, str], float | None, dict[str, Any] | None]]:
    """(metadata, alpha of the tensors, adapter_config.json) by what says it."""
    given = peft(stabilised=stabilised)
    multiplied = ALPHA * math.sqrt(RANK) if stabilised else ALPHA
    by_pattern = {**given, "lora_alpha": 99, "alpha_pattern": {"to_q": ALPHA, "attn1.to_k": ALPHA}}
    prefixed = {f"unet.{key}": value for key, value in given.items()}
    old = {"network_alpha": f"{ALPHA}", "network_dim": f"{RANK}", "rs_lora": str(stabilised)}
    return {
        "tensors": ({}, multiplied, None),
        "tensors with PEFT's alpha": ({"lora_adapter_metadata": json.dumps(prefixed)}, ALPHA, None),
        "tensors with the settings' root": ({"lora_adapter_metadata": json.dumps(prefixed)}, multiplied, None),
        "JSON of a component": ({"lora_adapter_metadata": json.dumps(prefixed)}, None, None),
        "JSON": ({"lora_adapter_metadata": json.dumps(given)}, None, None),
        "JSON by pattern": ({"lora_adapter_metadata": json.dumps(by_pattern)}, None, None),
        "JSON of a component over that of all": (
            {"lora_adapter_metadata": json.dumps({**given, "lora_alpha": 1, "unet.lora_alpha": ALPHA})},
            None,
            None,
        ),
        "another entry with JSON": ({"lora_config": json.dumps(given)}, None, None),
        "OneTrainer's entry": (
            {"ot_config": json.dumps({"lora_rank": RANK, "lora_alpha": ALPHA, "rs_lora": stabilised})},
            None,
            None,
        ),
        "config beside it": ({}, None, given),
        "config beside it by pattern": ({}, None, by_pattern),
        "plain": (texts(given), None, None),
        "plain, as Python writes it": ({key: str(value) for key, value in given.items()}, None, None),
        "plain of a component": (texts(given, "unet."), None, None),
        "plain by pattern": (texts(by_pattern), None, None),
        "plain under other names": (old, None, None),
        "plain lora_rank": ({"lora_rank": f"{RANK}", "lora_alpha": "6", "use_rslora": str(stabilised)}, None, None),
        "JSON without an alpha, and plain": ({"lora_adapter_metadata": "{}"} | texts(given), None, None),
    }


def written(folder: Path, metadata: dict[str, str], alpha: float | None, config: dict[str, Any] | None) -> Path:
    folder.mkdir()
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return write_tensors(folder / "adapter_model.safetensors", tensors_of(alpha), metadata)


@pytest.mark.parametrize("stabilised", [False, True])
def test_the_same_adapter_in_every_way_is_the_same_change(tmp_path: Path, stabilised: bool) -> None:
    scale = ALPHA / (math.sqrt(RANK) if stabilised else RANK)
    for number, (way, places) in enumerate(ways(stabilised).items()):
        adapter = load_adapter(written(tmp_path / str(number), *places))
        for name, (down, up) in FACTORS.items():
            change = adapter.deltas["unet", name].dense(np.zeros((8, 6), np.float32))
            np.testing.assert_allclose(change, scale * up @ down, rtol=1e-5, atol=1e-6, err_msg=way)
        assert adapter.warnings == (), way


OTHER = peft(stabilised=False, lora_alpha=1)


@pytest.mark.parametrize(
    ("metadata", "alpha", "config", "used", "other"),
    [
        (
            {"lora_adapter_metadata": json.dumps(OTHER)},
            ALPHA,
            None,
            "the alpha tensors",
            "metadata lora_adapter_metadata",
        ),
        ({}, ALPHA, OTHER, "the alpha tensors", "adapter_config.json"),
        (texts(OTHER), ALPHA, None, "the alpha tensors", "the header's plain entries"),
        ({"ot_config": json.dumps(OTHER)}, ALPHA, None, "the alpha tensors", "metadata ot_config"),
        (
            {"lora_adapter_metadata": json.dumps(peft(stabilised=False)), **texts(OTHER)},
            None,
            None,
            "metadata lora_adapter_metadata",
            "the header's plain entries",
        ),
        (
            {"lora_adapter_metadata": json.dumps(peft(stabilised=False))},
            None,
            OTHER,
            "metadata lora_adapter_metadata",
            "adapter_config.json",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_two_that_disagree_are_warned_of(
    tmp_path: Path, metadata: dict[str, str], alpha: float | None, config: Any, used: str, other: str
) -> None:
    adapter = load_adapter(written(tmp_path / "x", metadata, alpha, config))
    assert {delta.scale for delta in adapter.deltas.values()} == {1.5}
    assert adapter.warnings == (
        f"how strong it is, is said twice: {used} gives scale 1.5, {other} 0.25, in 2 of 2 modules (2 modules: {TO_Q}, "
        f"{TO_K}); applied with 1.5; if it is too strong, use the weight 0.167",
    )


@pytest.mark.parametrize(
    ("alpha", "dim", "is_warned"),
    [
        (f"{ALPHA:g}", "4", False),
        ("3", "2", False),  # resized: the scale is the same
        (f"{ALPHA:g}", "Dynamic", False),
        ("1", "Dynamic", False),
        ("1", "4", True),
    ],
)
def test_kohyas_numbers_beside_alpha_tensors(tmp_path: Path, alpha: str, dim: str, is_warned: bool) -> None:
    """They are a doubt if neither the alpha nor the scale is that of any module."""
    header = {"ss_network_alpha": alpha, "ss_network_dim": dim}
    warning = (
        "how strong it is, is said twice: the alpha tensors give scale 1.5, ss_network_alpha and ss_network_dim 0.25; "
        "applied with 1.5; if it is too strong, use the weight 0.167"
    )
    assert load_adapter(written(tmp_path / "x", header, ALPHA, None)).warnings == ((warning,) if is_warned else ())


def test_ranks_that_disagree_are_warned_of_only_if_the_scale_differs(tmp_path: Path) -> None:
    """A resized file keeps the scale by changing alpha with the rank."""
    settings = json.dumps({"unet.r": 16, "unet.lora_alpha": 4 * ALPHA})
    assert load_adapter(written(tmp_path / "a", {"lora_adapter_metadata": settings}, ALPHA, None)).warnings == ()
    adapter = load_adapter(written(tmp_path / "b", {"lora_adapter_metadata": settings}, None, None))
    assert {delta.scale for delta in adapter.deltas.values()} == {6.0}
    (warning,) = adapter.warnings
    assert warning.startswith(
        "how strong it is, is said twice: the tensors' own rank gives scale 6, metadata lora_adapter_metadata 1.5, in 2"
    )


def test_kohyas_numbers_without_alpha_tensors_are_warned_of(tmp_path: Path) -> None:
    """No program applies them; a tool that renames tensors may have lost the alphas, or multiplied them in."""
    metadata = {"ss_network_alpha": "2", "ss_network_dim": "4"}
    assert load_adapter(written(tmp_path / "a", metadata, None, None)).warnings == (
        "the header has ss_network_alpha 2 and ss_network_dim 4, but no module has an alpha: applied with scale 1; if "
        "it is too strong, use the weight 0.5",
    )
    assert load_adapter(written(tmp_path / "b", metadata, 2.0, None)).warnings == ()
    assert load_adapter(written(tmp_path / "c", metadata | {"ss_network_alpha": "None"}, None, None)).warnings == ()


def test_a_config_of_a_renamed_file_is_mentioned(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(peft(stabilised=False)))
    assert load_adapter(write_tensors(tmp_path / "ink.safetensors", tensors_of())).warnings == (
        "adapter_config.json next to it was not read, because PEFT's file is called adapter_model.safetensors; if the "
        "two belong together, rename this one, or its strength is wrong",
    )
    write_tensors(tmp_path / "adapter_model.safetensors", tensors_of())
    assert load_adapter(tmp_path / "ink.safetensors").warnings == ()


@pytest.mark.parametrize(
    ("start", "remedy"),
    [
        ("pissa", "save the adapter with path_initial_model_for_weight_conversion"),
        ("pissa_niter_16", "save the adapter with path_initial_model_for_weight_conversion"),
        ("OLoRA", "save the adapter with path_initial_model_for_weight_conversion"),
        ("corda", "save the adapter with path_initial_model_for_weight_conversion"),
        ("lora_ga", "save the adapter with path_initial_model_for_weight_conversion"),
        ("loftq", "train it without that, or use it with its own base model"),
    ],
)
@pytest.mark.parametrize("place", ["JSON", "config", "other JSON", "plain"])
def test_a_start_that_changes_the_base_model_is_refused(tmp_path: Path, start: str, remedy: str, place: str) -> None:
    settings = peft(stabilised=False, init_lora_weights=start)
    text = json.dumps(settings)
    metadata, config, source = {
        "JSON": ({"lora_adapter_metadata": text}, None, "metadata lora_adapter_metadata"),
        "config": ({}, settings, "adapter_config.json"),
        "other JSON": ({"lora_config": text}, None, "metadata lora_config"),
        "plain": (texts(settings), None, "the header's plain entries"),
    }[place]
    path = written(tmp_path / "x", metadata, None, config)
    assert message_of(AdapterError, lambda: load_adapter(path)) == (
        f"adapter_model.safetensors: {source}: init_lora_weights is {start}, which changes the base model too; {remedy}"
    )


def test_every_start_of_peft_has_a_verdict() -> None:
    """PEFT lists them in the type of the setting, all but lora_ga (0.21); a new one has to be looked at."""
    peft_module = pytest.importorskip("peft")
    annotation = str(peft_module.LoraConfig.__dataclass_fields__["init_lora_weights"].type)
    harmless = {"gaussian", "eva", "orthogonal", "mica"}
    assert set(annotation.replace('"', "'").split("'")[1::2]) == harmless | {
        "olora",
        "pissa",
        "pissa_niter_[number of iters]",
        "corda",
        "loftq",
    }

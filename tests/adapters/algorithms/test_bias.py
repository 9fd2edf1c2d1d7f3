"""Changes of biases."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError
from tests.adapter_files import Stored, message_of, write_tensors
from tests.adapters.references import FF, assert_merges_alike, peft_file, small_net

KEY = "lora_unet_" + FF.replace(".", "_")
RANDOM = np.random.default_rng(0)


def stored(**roles: np.ndarray) -> dict[str, Stored]:
    return {f"{KEY}.{role}": ("F32", np.asarray(array, np.float32)) for role, array in roles.items()}


def lora(**others: Any) -> dict[str, Stored]:
    factors = {"lora_down.weight": RANDOM.normal(size=(4, 8)), "lora_up.weight": RANDOM.normal(size=(6, 4))}
    return stored(**factors, **others)


@pytest.mark.parametrize("rslora", [False, True])
def test_peft_loras_own_bias_is_scaled_like_it(tmp_path: Path, rslora: bool) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=4, lora_alpha=3, target_modules=["net.2", "conv_shortcut"], lora_bias=True, use_rslora=rslora
    )
    adapter = assert_merges_alike(*peft_file(tmp_path / "a", small_net(), config, only="lora_"))
    assert len(adapter.biases) == 2


def test_biases_that_peft_trained_replace(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["net.2", "conv_shortcut"], bias="all")
    net = small_net()
    path, before, after = peft_file(tmp_path / "a", net, config, only="bias")
    adapter = load_adapter(path)
    for (_, name), delta in adapter.biases.items():
        old, new = before[name].bias, after[name].bias
        assert old is not None
        assert new is not None
        np.testing.assert_allclose(old + delta.dense(old), new, rtol=1e-6)
    assert len(adapter.biases) == 3


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        (stored(diff=np.zeros((2, 2)), diff_b=[1, 2]), [1, 2]),
        (stored(w_norm=[0, 0], b_norm=[1, 2]), [1, 2]),
        (stored(weight=np.zeros((2, 2)), bias=[1, 2]), [1 - 10, 2 - 20]),
    ],
)
def test_added_and_replaced(tmp_path: Path, tensors: dict[str, Stored], expected: list[float]) -> None:
    other = {
        "lora_unet_conv_out.diff": ("F32", np.ones((2, 2), np.float32))
    }  # otherwise it would look like a full model
    adapter = load_adapter(write_tensors(tmp_path / "a.safetensors", tensors | other))
    ((_, delta),) = adapter.biases.items()
    assert delta.out_features == 2
    assert delta.dense(np.array([10, 20], np.float32)).tolist() == expected


def test_a_loras_bias_is_scaled_by_alpha(tmp_path: Path) -> None:
    tensors = lora(alpha=2) | stored(**{"lora_up.bias": np.arange(6)})
    (delta,) = load_adapter(write_tensors(tmp_path / "a.safetensors", tensors)).biases.values()
    assert delta.dense(np.ones(6, np.float32)).tolist() == [0, 0.5, 1, 1.5, 2, 2.5]


def test_a_bias_alone(tmp_path: Path) -> None:
    adapter = load_adapter(write_tensors(tmp_path / "a.safetensors", stored(diff_b=np.ones(6))))
    assert not adapter.deltas
    assert set(adapter.biases) == {("unet", FF)}


def test_a_bias_of_another_length(tmp_path: Path) -> None:
    (delta,) = load_adapter(write_tensors(tmp_path / "a.safetensors", lora(diff_b=np.ones(6)))).biases.values()
    assert message_of(AdapterError, lambda: delta.dense(np.ones(5, np.float32))) == (
        f"unet {FF}: the adapter changes a bias of 6 numbers, but the model's has 5"
    )


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            lora(diff_b=np.ones(6), bias=np.ones(6)),
            f"unet {FF}: expected only one change of the bias, not 2 tensors: {KEY}.bias, {KEY}.diff_b",
        ),
        (lora(diff_b=np.ones((6, 1))), f"tensor {KEY}.diff_b has shape [6, 1]; expected 1 dimension"),
        (
            stored(**{"lora_up.bias": np.ones(6), "diff": np.ones((6, 8))}),
            f"unet {FF}: there is no down, whose rank scales the bias {KEY}.lora_up.bias",
        ),
    ],
)
def test_refused(tmp_path: Path, tensors: dict[str, Stored], message: str) -> None:
    path = write_tensors(tmp_path / "a.safetensors", tensors)
    assert message_of(AdapterError, lambda: load_adapter(path)) == f"a.safetensors: {message}"

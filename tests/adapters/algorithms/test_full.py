"""Full differences, replacements, norms and sparse residuals."""

from pathlib import Path

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError
from tests.adapter_files import Stored, encode, message_of, write_tensors
from tests.adapters.references import (
    CONV,
    FF,
    GROUP_NORM,
    LAYER_NORM,
    TO_Q,
    assert_merges_alike,
    lycoris_file,
    small_net,
)

RANDOM = np.random.default_rng(0)
Q = f"lora_unet_{TO_Q.replace('.', '_')}"
IN = "lora_unet_conv_in"


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def stored(**tensors: np.ndarray) -> dict[str, Stored]:
    """Role names have _ instead of dots."""
    return {name: ("F32", array) for name, array in tensors.items()}


def only_delta(path: Path):
    (delta,) = load_adapter(path).deltas.values()
    return delta


def test_lycoris_full_with_norms_and_biases(tmp_path: Path) -> None:
    pytest.importorskip("lycoris")
    adapter = assert_merges_alike(
        *lycoris_file(tmp_path / "full.safetensors", small_net(norms=True), algo="full", train_norm=True)
    )
    assert {path: delta.algorithm for (_, path), delta in adapter.deltas.items() if delta.algorithm != "full"} == {
        GROUP_NORM: "norm",
        LAYER_NORM: "norm",
    }
    assert {path for _, path in adapter.biases} >= {CONV, FF, GROUP_NORM, LAYER_NORM}


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_alpha_does_not_scale_a_difference(tmp_path: Path, dtype: str) -> None:
    diff = (RANDOM.integers(-64, 64, (8, 6)) / 64).astype(np.float32)
    path = write_tensors(
        tmp_path / "a.safetensors",
        {f"{Q}.diff": (dtype, encode(diff, dtype)), f"{Q}.alpha": ("F32", np.float32(3).reshape(()))},
    )
    delta = only_delta(path)
    change = delta.dense(normal(8, 6))
    assert np.array_equal(change, diff)
    assert change.flags.writeable
    assert (delta.algorithm, delta.rank, delta.alpha, delta.scale, delta.live) == ("full", None, None, 1.0, "")
    assert (delta.in_features, delta.out_features, delta.made_for) == (6, 8, "8×6")


def test_a_replacement_results_in_its_own_values(tmp_path: Path) -> None:
    target, weight = normal(8, 6, 1, 1), normal(8, 6)
    delta = only_delta(write_tensors(tmp_path / "a.safetensors", stored(**{f"{Q}.set_weight": target})))
    assert np.array_equal(delta.dense(weight), target.reshape(8, 6) - weight)


def test_a_whole_layer_of_ai_toolkit_replaces_weight_and_bias(tmp_path: Path) -> None:
    weight, bias = normal(5, 4, 3, 3), normal(5)
    path = write_tensors(
        tmp_path / "a.safetensors",
        stored(**{"unet_conv_in.weight": weight, "unet_conv_in.bias": bias, f"{Q}.diff": normal(8, 6)}),
    )
    adapter = load_adapter(path)
    base, base_bias = normal(5, 4, 3, 3), normal(5)
    assert np.array_equal(adapter.deltas["unet", "conv_in"].dense(base), weight - base)
    assert np.array_equal(adapter.biases["unet", "conv_in"].dense(base_bias), bias - base_bias)


def test_ai_toolkits_full_rank_is_a_down_of_the_weights_shape(tmp_path: Path) -> None:
    diff = normal(8, 6)
    delta = only_delta(write_tensors(tmp_path / "a.safetensors", stored(**{f"{Q}.lora_down.weight": diff})))
    assert np.array_equal(delta.dense(normal(8, 6)), diff)


@pytest.mark.parametrize("role", ["diff", "set_weight"])
def test_conv_in_for_latents_leaves_the_other_inputs_of_an_inpainting_model_alone(tmp_path: Path, role: str) -> None:
    tensor, weight = normal(5, 4, 3, 3), normal(5, 9, 3, 3)
    delta = only_delta(write_tensors(tmp_path / "a.safetensors", stored(**{f"{IN}.{role}": tensor})))
    assert delta.fits((5, 9, 3, 3))
    assert delta.fits((5, 4, 3, 3))
    assert not delta.fits((5, 8, 3, 3))
    change = delta.dense(weight)
    assert np.array_equal(change[:, :4], tensor - weight[:, :4] if role == "set_weight" else tensor)
    assert not change[:, 4:].any()


def test_only_conv_in_is_padded(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "a.safetensors", stored(**{"lora_unet_conv_out.diff": normal(5, 4, 3, 3)}))
    delta = only_delta(path)
    assert not delta.fits((5, 9, 3, 3))
    assert message_of(AdapterError, lambda: delta.dense(normal(5, 9, 3, 3))) == (
        "unet conv_out: the adapter changes a weight of 5×4×3×3, but the model's is 5×9×3×3"
    )


def test_a_norm_fits_a_norm_of_its_length(tmp_path: Path) -> None:
    name = "lora_unet_" + LAYER_NORM.replace(".", "_")
    delta = only_delta(write_tensors(tmp_path / "a.safetensors", stored(**{f"{name}.w_norm": normal(16)})))
    assert delta.fits((16,))
    assert not delta.fits((16, 16))
    assert message_of(AdapterError, lambda: delta.dense(normal(8))) == (
        f"unet {LAYER_NORM}: the adapter changes a weight of 16 numbers, but the model's is 8"
    )


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {f"{Q}.diff": normal(2, 2, 2)},
            f"tensor {Q}.diff has shape [2, 2, 2]; expected 1 or 2 or 4 dimensions",
        ),
        (
            {f"{Q}.diff": normal(2, 2), f"{Q}.set_weight": normal(2, 2)},
            f"unet {TO_Q}: unexpected 1 tensor: {Q}.set_weight with {Q}.diff",
        ),
    ],
)
def test_refused(tmp_path: Path, tensors: dict[str, np.ndarray], message: str) -> None:
    path = write_tensors(tmp_path / "a.safetensors", stored(**tensors))
    assert message_of(AdapterError, lambda: load_adapter(path)) == f"a.safetensors: {message}"

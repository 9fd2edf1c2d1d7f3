"""IA3, against LyCORIS and PEFT."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError
from tests.adapter_files import Stored, message_of, write_tensors
from tests.adapters.references import (
    CONV,
    FF,
    SHORTCUT,
    TO_K,
    TO_Q,
    assert_merges_alike,
    lycoris_file,
    peft_file,
    randomize,
    relative,
    small_net,
)

Q = "lora_unet_" + TO_Q.replace(".", "_")


def test_lycoris_on_outputs(tmp_path: Path) -> None:
    pytest.importorskip("lycoris")
    adapter = assert_merges_alike(*lycoris_file(tmp_path / "a.safetensors", small_net(), algo="ia3"))
    assert {delta.live for delta in adapter.deltas.values()} == {"gate"}
    assert not adapter.biases


@pytest.mark.parametrize("path", [TO_K, CONV])
def test_lycoris_on_inputs(tmp_path: Path, path: str) -> None:
    pytest.importorskip("lycoris")
    from lycoris.modules.ia3 import IA3Module
    from safetensors.torch import save_file

    layer = small_net().get_submodule(path)
    module = IA3Module("ia3", layer, train_on_input=True)
    randomize(module, 0.2)
    key = "lora_unet_" + path.replace(".", "_")
    file = tmp_path / "a.safetensors"
    save_file({f"{key}.{role}": tensor.contiguous() for role, tensor in module.state_dict().items()}, file)
    (delta,) = load_adapter(file).deltas.values()
    weight = layer.weight.detach().numpy()
    assert relative(delta.dense(weight), module.get_diff_weight()[0].detach().numpy()) <= 1e-6
    assert (delta.live, delta.gated(weight)) == ("", None)
    assert (delta.in_features, delta.out_features) == (weight.shape[1], None)


@pytest.mark.parametrize("feedforward", [["net.2", "conv1"], []])
def test_peft_multiplies_the_bias_of_outputs_too(tmp_path: Path, feedforward: list[str]) -> None:
    peft = pytest.importorskip("peft")
    targets = ["to_q", "to_k", "net.2", "conv1", "conv_shortcut"]
    config = peft.IA3Config(target_modules=targets, feedforward_modules=feedforward)
    adapter = assert_merges_alike(*peft_file(tmp_path / "a", small_net(), config, only="ia3_l"))
    live = {path for (_, path), delta in adapter.deltas.items() if delta.live == "gate"}
    assert live == {TO_Q, TO_K, SHORTCUT} | (set() if feedforward else {FF, CONV})


def write_convolution(folder: Path, settings: dict[str, Any] | None) -> Path:
    folder.mkdir()
    if settings is not None:
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    name = f"base_model.model.{CONV}.ia3_l"
    values = np.arange(6, dtype=np.float32).reshape(1, 6, 1, 1)
    return write_tensors(folder / "adapter_model.safetensors", {name: ("F32", values)})


@pytest.mark.parametrize(("feedforward", "on_input"), [(CONV, True), ("conv2", False), (["conv1"], True), ([], False)])
def test_peft_settings_decide_what_a_convolution_multiplies(tmp_path: Path, feedforward: Any, on_input: bool) -> None:
    (delta,) = load_adapter(write_convolution(tmp_path / "a", {"feedforward_modules": feedforward})).deltas.values()
    assert delta.made_for == ("6 inputs" if on_input else "6 outputs")


@pytest.mark.parametrize("settings", [None, {}, {"feedforward_modules": ".*conv1"}, {"feedforward_modules": [1]}])
def test_a_convolution_of_peft_needs_its_settings(tmp_path: Path, settings: dict[str, Any] | None) -> None:
    path = write_convolution(tmp_path / "a", settings)
    assert message_of(AdapterError, lambda: load_adapter(path)) == (
        f"adapter_model.safetensors: unet {CONV}: base_model.model.{CONV}.ia3_l may multiply inputs or outputs; "
        "keep adapter_config.json next to the file, with feedforward_modules as a list of names"
    )


def lycoris_tensors(weight: np.ndarray, on_input: Stored) -> dict[str, Stored]:
    return {f"{Q}.weight": ("F32", weight.astype(np.float32)), f"{Q}.on_input": on_input}


ON_OUTPUT: Stored = ("I64", np.zeros((), np.int64))


@pytest.mark.parametrize("on_input", [("I64", np.ones((), "<i8")), ("BF16", np.array([0x3F80], "<u2"))])
def test_on_input_in_any_dtype(tmp_path: Path, on_input: Stored) -> None:
    (delta,) = load_adapter(
        write_tensors(tmp_path / "a.safetensors", lycoris_tensors(np.ones(6), on_input))
    ).deltas.values()
    assert delta.made_for == "6 inputs"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            lycoris_tensors(np.ones(6), ("I64", np.full((), 2, np.int64))),
            f"unet {TO_Q}: {Q}.on_input is [2.0]; expected 0 or 1",
        ),
        (
            lycoris_tensors(np.ones((2, 3)), ON_OUTPUT),
            f"tensor {Q}.weight has shape [2, 3]; expected one number per channel",
        ),
        (
            {f"{Q}.on_input": ON_OUTPUT},
            f"unet {TO_Q}: no weight for 1 tensor: {Q}.on_input",
        ),
    ],
)
def test_refused(tmp_path: Path, tensors: dict[str, Stored], message: str) -> None:
    path = write_tensors(tmp_path / "a.safetensors", tensors)
    assert message_of(AdapterError, lambda: load_adapter(path)) == f"a.safetensors: {message}"


def test_a_weight_of_another_shape(tmp_path: Path) -> None:
    (delta,) = load_adapter(
        write_tensors(tmp_path / "a.safetensors", lycoris_tensors(np.ones(6), ON_OUTPUT))
    ).deltas.values()
    assert delta.fits((6, 3, 3, 3))
    message = f"unet {TO_Q}: the adapter changes a weight of 6 outputs, but the model's is 5×6"
    assert message_of(AdapterError, lambda: delta.dense(np.ones((5, 6), np.float32))) == message

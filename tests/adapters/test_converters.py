"""What the converters of diffusers write is the same adapter as what they were given."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from tests.adapter_files import SDXL_SHAPES, write_tensors
from tests.adapters.algorithms.deltas import normal

pytest.importorskip("diffusers")

if TYPE_CHECKING:
    import torch

MODULES = {module: shape for module, shape in SDXL_SHAPES.items() if len(shape) == 2}


def state_of(dora: bool) -> "dict[str, torch.Tensor]":
    """An adapter as PEFT and diffusers name it, for every kind of module of SDXL."""
    import torch

    state: dict[str, torch.Tensor] = {}
    for number, ((component, path), (out, inputs)) in enumerate(MODULES.items()):
        key = f"{component}.{path}"
        state[f"{key}.lora_A.weight"] = torch.tensor(normal(4, inputs, seed=number))
        state[f"{key}.lora_B.weight"] = torch.tensor(normal(out, 4, seed=number + 100))
        if dora:
            state[f"{key}.lora_magnitude_vector"] = torch.tensor(np.abs(normal(out, seed=number)) + 0.5)
    return state


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("converter", ["kohya", "peft to kohya", "diffusers", "unet to peft", "bare kohya"])
def test_the_change_stays_the_same(tmp_path: Path, converter: str, dora: bool) -> None:
    from diffusers.utils import (
        convert_all_state_dict_to_peft,
        convert_state_dict_to_diffusers,
        convert_state_dict_to_kohya,
        convert_unet_state_dict_to_peft,
    )

    state: dict[str, Any] = state_of(dora)
    source = load_adapter(write_tensors(tmp_path / "a.safetensors", {k: ("F32", v.numpy()) for k, v in state.items()}))
    if converter == "bare kohya":  # as one network's own state dict
        state = {key.removeprefix("unet."): value for key, value in state.items() if key.startswith("unet.")}
    converted = {
        "kohya": convert_state_dict_to_kohya,
        "peft to kohya": lambda given: convert_state_dict_to_kohya(convert_all_state_dict_to_peft(given)),
        "diffusers": convert_state_dict_to_diffusers,
        "unet to peft": convert_unet_state_dict_to_peft,
        "bare kohya": convert_state_dict_to_kohya,
    }[converter](state)
    tensors = {key: ("F32", value.float().numpy()) for key, value in converted.items()}
    adapter = load_adapter(write_tensors(tmp_path / "b.safetensors", tensors))
    expected = {module for module in MODULES if converter != "bare kohya" or module[0] == "unet"}
    assert adapter.deltas.keys() == expected
    assert adapter.covered == adapter.tensor_count
    for module in expected:
        weight = normal(*MODULES[module], seed=7)
        change = source.deltas[module].dense(weight)
        assert adapter.deltas[module].algorithm == ("dora" if dora else "lora")
        np.testing.assert_array_equal(adapter.deltas[module].dense(weight), change)

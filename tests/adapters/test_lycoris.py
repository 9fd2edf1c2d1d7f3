"""Files that LyCORIS writes, compared to how its own modules change the weights in training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.tools.rename import rename
from tests.adapters.references import (
    CONV,
    FF,
    SHORTCUT,
    TO_K,
    TO_Q,
    Layers,
    assert_forms_agree,
    layers_of,
    randomize,
    relative,
    small_net,
)

pytest.importorskip("lycoris")

PATHS = {TO_Q, TO_K, FF, CONV, SHORTCUT}


# What create_lycoris calls the arguments of its network. It drops rs_lora, which kohya's create_network passes on.
NETWORK_ARGUMENTS = {
    "algo": "network_module",
    "linear_dim": "lora_dim",
    "linear_alpha": "alpha",
    "conv_dim": "conv_lora_dim",
    "dora_wd": "weight_decompose",
    "wd_on_output": "wd_on_out",
}


def network_of(net: Any, **options: Any) -> Any:
    from lycoris.config import PRESET
    from lycoris.wrapper import LycorisNetwork

    LycorisNetwork.apply_preset(PRESET["full"])
    network = LycorisNetwork(net, **{NETWORK_ARGUMENTS.get(name, name): value for name, value in options.items()})
    assert all(getattr(lora, "rs_lora", False) == options.get("rs_lora", False) for lora in network.loras)
    return network


def header_of(options: dict[str, Any]) -> dict[str, str]:
    """What kohya's trainer writes about such a network."""
    dims = ("linear_dim", "linear_alpha")
    return {
        "ss_network_module": "lycoris.kohya",
        "ss_network_dim": str(options["linear_dim"]),
        "ss_network_alpha": str(options["linear_alpha"]),
        "ss_network_args": json.dumps({name: str(value) for name, value in options.items() if name not in dims}),
    }


def written(path: Path, **options: Any) -> tuple[Path, Layers, dict[str, np.ndarray]]:
    """Return a file that LyCORIS saves, the layers, and the weights that its forward passes use instead.

    They are not those of its `merge_to`, which multiplies LoHa and LoKr by alpha / rank twice (4.1.3).
    """
    import torch

    net = small_net()
    network = network_of(net, **options)
    weights: dict[str, np.ndarray] = {}
    names = {name.replace(".", "_"): name for name in PATHS}
    for number, lora in enumerate(network.loras):
        network.add_module(lora.lora_name, lora)
        randomize(lora, 0.2, seed=number)
        with torch.no_grad():
            change = lora.make_weight() * lora.scale if hasattr(lora, "make_weight") else lora.get_weight(lora.shape)
            weight = lora.org_weight + change.reshape(lora.shape) * (1 if hasattr(lora, "make_weight") else lora.scalar)
            weights[names[lora.lora_name.removeprefix("lycoris_")]] = (
                lora.apply_weight_decompose(weight) if lora.wd else weight
            ).numpy()
    network.save_weights(path, torch.float32, header_of(options))
    return path, layers_of(net), weights


# LyCORIS factors the second matrix of a LoKr only if the rank is below half its size.
@pytest.mark.parametrize(
    ("options", "algorithm", "live"),
    [
        ({"algo": "locon"}, "lora", 5),
        ({"algo": "locon", "use_tucker": True}, "lora", 5),
        ({"algo": "locon", "rs_lora": True}, "lora", 5),
        ({"algo": "locon", "use_scalar": True}, "lora", 5),
        ({"algo": "loha"}, "loha", 5),
        ({"algo": "loha", "use_tucker": True}, "loha", 5),
        ({"algo": "loha", "rs_lora": True, "use_scalar": True}, "loha", 5),
        ({"algo": "lokr", "factor": 4}, "lokr", 5),
        ({"algo": "lokr", "factor": 4, "use_tucker": True}, "lokr", 5),
        ({"algo": "lokr", "factor": 2, "unbalanced_factorization": True, "use_scalar": True}, "lokr", 5),
        ({"algo": "lokr", "factor": 4, "decompose_both": True, "linear_dim": 1, "conv_dim": 1}, "lokr", 5),
        ({"algo": "lokr", "factor": 4, "linear_dim": 4, "conv_dim": 16}, "lokr", 2),
        ({"algo": "lokr", "factor": 4, "rs_lora": True}, "lokr", 5),
        ({"algo": "lokr", "factor": 4, "full_matrix": True}, "lokr", 0),
        ({"algo": "lokr", "factor": 4, "full_matrix": True, "rs_lora": True}, "lokr", 0),
        ({"algo": "lokr", "factor": 4, "linear_dim": 4, "conv_dim": 16, "rs_lora": True}, "lokr", 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("decompose", [None, "outputs", "inputs"])
def test_what_lycoris_saves(
    tmp_path: Path, options: dict[str, Any], algorithm: str, live: int, decompose: str | None
) -> None:
    chosen = {"linear_dim": 2, "linear_alpha": 1.5, "conv_dim": 2, "conv_alpha": 0.5, **options}
    if decompose:
        chosen |= {"dora_wd": True, "wd_on_output": decompose == "outputs"}
    path, layers, weights = written(tmp_path / "x.safetensors", **chosen)
    adapter = load_adapter(path)
    assert adapter.covered == adapter.tensor_count
    assert adapter.warnings == ()
    assert {name for _, name in adapter.deltas} == PATHS == weights.keys()
    for (_, name), delta in adapter.deltas.items():
        weight = layers[name].weight
        change = delta.dense(weight)
        expected = weights[name] - weight
        # Both are float32, and the difference of two weights, which is all that LyCORIS gives, has lost a digit.
        assert relative(change, expected) <= 1e-5, name
        assert delta.algorithm == ("dora" if decompose else algorithm)
        assert delta.out_features == weight.shape[0]
        assert delta.in_features == weight.shape[1]
        assert delta.fits(weight.shape)
        assert not delta.fits((*weight.shape[:1], weight.shape[1] + 1, *weight.shape[2:]))
        assert_forms_agree(delta, weight, change)
    assert sum(bool(delta.live) for delta in adapter.deltas.values()) == (0 if decompose == "inputs" else live)


@pytest.mark.parametrize(
    "options",
    [
        {"algo": "glora"},
        {"algo": "glora", "rs_lora": True},
        {"algo": "dylora", "block_size": 2},
        {"algo": "dylora"},
        {"algo": "lokr", "factor": 4, "full_matrix": True, "rs_lora": True},
    ],
    ids=str,
)
def test_scales_that_only_the_header_tells(tmp_path: Path, options: dict[str, Any]) -> None:
    """Tools that keep the change keep it whatever header they write."""
    import torch

    net = small_net()
    options = {"linear_dim": 4, "linear_alpha": 3, "conv_dim": 8, "conv_alpha": 2, **options}
    network = network_of(net, **options)
    path = tmp_path / "x.safetensors"
    weights: dict[str, np.ndarray] = {}
    names = {name.replace(".", "_"): name for name in PATHS}
    for number, lora in enumerate(network.loras):
        network.add_module(lora.lora_name, lora)
        randomize(lora, 0.2, seed=number)
        whole = {"rank": lora.lora_dim - lora.block_size} if options["algo"] == "dylora" else {}
        with torch.no_grad():
            # get_diff_weight of a LoKr multiplies by the scale twice (4.1.3), unlike the forward pass.
            lokr = options["algo"] == "lokr"
            change = lora.get_weight(lora.shape) if lokr else lora.get_diff_weight(**whole)[0]
            weights[names[lora.lora_name.removeprefix("lycoris_")]] = change.numpy()
    network.save_weights(path, torch.float32, header_of(options))
    layers = layers_of(net)
    adapter = load_adapter(path)
    assert adapter.warnings == ()
    rename(adapter, tmp_path / "kohya.safetensors", "kohya")
    for file in (path, tmp_path / "kohya.safetensors"):
        for (_, name), delta in load_adapter(file).deltas.items():
            weight = layers[name].weight
            assert relative(delta.dense(weight), weights[name].reshape(weight.shape)) <= 1e-5, (file.name, name)


@pytest.mark.parametrize(
    ("options", "lost", "warning"),
    [
        (
            {"algo": "lokr", "factor": 4, "full_matrix": True, "rs_lora": True, "linear_dim": 8},
            True,
            "LoKr of whole matrices with alpha 22.6274: applied with scale 1, as LyCORIS does; if it is too weak, it "
            "was trained with rs_lora at 2.83 times the strength",
        ),
        ({"algo": "lokr", "factor": 4, "full_matrix": True, "linear_dim": 8}, True, ""),
        (
            {"algo": "glora", "linear_dim": 4},
            True,
            "GLoRA without ss_network_args, which would say whether it was trained with rs_lora: applied without; "
            "if it is too weak, it was trained with it, at 2 times the strength",
        ),
        ({"algo": "glora", "linear_dim": 4}, False, ""),
    ],
    ids=str,
)
def test_without_the_header_a_warning_says_which_way_it_may_be_off(
    tmp_path: Path, options: dict[str, Any], lost: bool, warning: str
) -> None:
    import torch

    options = {"linear_alpha": 1, "conv_dim": options["linear_dim"], **options}
    network = network_of(small_net(), **options)
    for lora in network.loras:
        network.add_module(lora.lora_name, lora)
    network.save_weights(tmp_path / "x.safetensors", torch.float32, {} if lost else header_of(options))
    assert load_adapter(tmp_path / "x.safetensors").warnings == ((warning,) if warning else ())

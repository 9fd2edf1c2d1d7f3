"""Files that LyCORIS writes, compared to how its own modules change the weights: LoCon, LoHa, LoKr and DoRA."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
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


def written(path: Path, **options: Any) -> tuple[Path, Layers, dict[str, np.ndarray]]:
    """Return a file that LyCORIS saves, the layers, and the weights that its forward passes use instead.

    They are not those of its `merge_to`, which multiplies LoHa and LoKr by alpha / rank twice (4.1.3).
    """
    import torch
    from lycoris import create_lycoris

    net = small_net()
    network = create_lycoris(net, 1.0, **options)
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
    network.save_weights(path, torch.float32, {})
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
        ({"algo": "lokr", "factor": 4, "full_matrix": True}, "lokr", 0),
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

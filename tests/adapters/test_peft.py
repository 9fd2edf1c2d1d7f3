"""Files that PEFT's `save_pretrained` writes, compared to how its `merge_and_unload` changes the weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from tests.adapters.references import CONV, FF, SHORTCUT, TO_K, TO_Q, assert_forms_agree, peft_file, relative, small_net

pytest.importorskip("peft")

PATHS = [TO_Q, TO_K, FF, CONV, SHORTCUT]
ENDINGS = ["to_q", "to_k", "ff.net.2", "conv1", "conv_shortcut"]


@pytest.mark.parametrize(
    ("kind", "options", "only", "algorithm", "live"),
    [
        ("Lora", {"r": 3, "lora_alpha": 2}, "lora_", "lora", 5),
        ("Lora", {"r": 4, "lora_alpha": 2, "use_rslora": True}, "lora_", "lora", 5),
        (
            "Lora",
            {"r": 4, "lora_alpha": 2, "rank_pattern": {"to_q": 2}, "alpha_pattern": {"attn2.to_k": 7, "conv1": 3}},
            "lora_",
            "lora",
            5,
        ),
        ("Lora", {"r": 3, "lora_alpha": 2, "use_dora": True}, "lora_", "dora", 5),
        ("Lora", {"r": 3, "lora_alpha": 2, "use_dora": True, "use_rslora": True}, "lora_", "dora", 5),
        ("LoHa", {"r": 3, "alpha": 2}, "hada_", "loha", 5),
        ("LoHa", {"r": 2, "alpha": 3, "use_effective_conv2d": True}, "hada_", "loha", 5),
        (
            "LoHa",
            {"r": 3, "alpha": 2, "rank_pattern": {"to_q": 2}, "alpha_pattern": {"to_k": 7, "conv1": 3}},
            "hada_",
            "loha",
            5,
        ),
        ("LoKr", {"r": 2, "alpha": 3, "decompose_factor": 4}, "lokr_", "lokr", 5),
        ("LoKr", {"r": 2, "alpha": 3, "decompose_factor": 2, "use_effective_conv2d": True}, "lokr_", "lokr", 5),
        ("LoKr", {"r": 1, "alpha": 3, "decompose_factor": 4, "decompose_both": True}, "lokr_", "lokr", 5),
        # two whole matrices: only the settings have the rank by which PEFT divides alpha
        ("LoKr", {"r": 16, "alpha": 3, "decompose_factor": 4}, "lokr_", "lokr", 0),
        (
            "LoKr",
            {
                "r": 16,
                "alpha": 3,
                "decompose_factor": 4,
                "rank_pattern": {"to_q": 20, "conv.*": 24},
                "alpha_pattern": {"to_k": 7},
            },
            "lokr_",
            "lokr",
            0,
        ),
    ],
    ids=str,
)
def test_what_peft_saves(
    tmp_path: Path, kind: str, options: dict[str, Any], only: str, algorithm: str, live: int
) -> None:
    import peft

    config = getattr(peft, f"{kind}Config")(target_modules=ENDINGS, **options)
    path, before, after = peft_file(tmp_path, small_net(), config, only=only, deviation=0.5)
    adapter = load_adapter(path)
    assert adapter.covered == adapter.tensor_count
    assert {name for _, name in adapter.deltas} == set(PATHS)
    for (_, name), delta in adapter.deltas.items():
        weight = before[name].weight
        change = delta.dense(weight)
        # The difference of two float32 weights has lost a digit.
        assert relative(change, after[name].weight - weight) <= 1e-5, name
        assert delta.algorithm == algorithm
        assert delta.fits(weight.shape)
        assert_forms_agree(delta, weight, change)
    assert sum(bool(delta.live) for delta in adapter.deltas.values()) == live


def test_the_adapters_name_may_be_left_in(tmp_path: Path) -> None:
    """A file with the plain `state_dict` of a PEFT model."""
    import torch
    from peft import LoHaConfig, get_peft_model
    from safetensors.torch import save_file

    model = get_peft_model(small_net(), LoHaConfig(target_modules=["to_q"], r=2, alpha=2, init_weights=False))
    save_file({k: v for k, v in model.state_dict().items() if "hada" in k}, tmp_path / "x.safetensors")
    (delta,) = load_adapter(tmp_path / "x.safetensors").deltas.values()
    with torch.no_grad():
        expected = model.get_submodule(f"base_model.model.{TO_Q}").get_delta_weight("default").numpy()
    assert relative(delta.dense(np.empty((32, 32), np.float32)), expected) <= 1e-6

"""Files that PEFT's `save_pretrained` writes, compared to how its `merge_and_unload` changes the weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.names.keys import PEFT_METHODS
from tests.adapter_files import message_of
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


@pytest.mark.parametrize("variant", ["velora", "monteclora"])
def test_tensors_that_only_training_needs_are_left_out(tmp_path: Path, variant: str) -> None:
    """VeLoRA saves memory in the backward pass, MonteCLoRA samples around the weights: both end as a plain LoRA."""
    import peft

    options: dict[str, Any] = (
        {"velora_config": peft.VeloraConfig(num_groups=4, init_type="random")}
        if variant == "velora"
        else {"monteclora_config": peft.MontecloraConfig(num_samples=2, buffer_size=2)}
    )
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["to_q", "to_k"], **options)
    path, before, after = peft_file(tmp_path, small_net(), config, only="lora_", deviation=0.5)
    adapter = load_adapter(path)
    assert adapter.ignored
    assert all(f".lora_{variant}_" in name for name in adapter.ignored)
    assert adapter.covered + len(adapter.ignored) == adapter.tensor_count
    for name in (TO_Q, TO_K):
        weight = before[name].weight
        assert relative(adapter.deltas["unet", name].dense(weight), after[name].weight - weight) <= 1e-5


APPLIED = {"LORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT"}


def test_every_method_of_peft_is_applied_or_refused_by_name() -> None:
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    # They learn vectors in front of a prompt, all of which are saved under one name; AdaLoRA shares LoRA's prefix.
    prompts = {"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE"}
    others = {"ADALORA": "lora_E", "XLORA": "internal_xlora_", **dict.fromkeys(prompts, "prompt_embeddings")}
    for method, prefix in PEFT_TYPE_TO_PREFIX_MAPPING.items():
        if method.value not in APPLIED:
            start = others.get(method.value, prefix)
            assert any(start.startswith(known) for known in PEFT_METHODS), method


@pytest.mark.parametrize(
    ("method", "name", "options"),
    [
        ("LNTuning", "LN tuning", {"target_modules": ["norm1"]}),
        ("Lily", "Lily", {"r": 4}),
        ("Peanut", "PEANuT", {"r": 4}),
        ("Adamss", "AdaMSS", {}),
        ("Beft", "BEFT", {}),
        ("Deft", "DEFT", {}),
        ("Delora", "DeLoRA", {}),
        ("FourierFT", "FourierFT", {"n_frequency": 10}),
        ("Glora", "its own GLoRA", {"r": 2}),
        ("Gralora", "GraLoRA", {}),
        ("Hira", "HiRA", {}),
        ("HRA", "HRA", {}),
        ("Vera", "VeRA", {"r": 4}),
        ("AdaLora", "AdaLoRA", {"total_step": 10, "init_r": 4, "target_r": 2}),
    ],
)
def test_a_method_that_is_not_applied_is_named(tmp_path: Path, method: str, name: str, options: dict[str, Any]) -> None:
    import peft

    config = getattr(peft, f"{method}Config")(**{"target_modules": ["to_q"], **options})
    peft.get_peft_model(small_net(norms=True), config).save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    message = message_of(AdapterError, lambda: load_adapter(path))
    assert message.startswith(f"adapter_model.safetensors: made with PEFT's {name} (tensor base_model.model.")
    assert message.endswith("), which is not supported; train a LoRA")
    assert message_of(AdapterError, lambda: load_adapter(path, lenient=True)) == message


# Settings of LoraConfig that make its layers another kind, with what we do about them.
VARIANTS = {
    "use_dora": "applied",
    "velora_config": "applied",
    "monteclora_config": "applied",
    "use_bdlora": "BD-LoRA, whose tensors are blocks of a matrix",
    "use_qalora": "QA-LoRA, which averages a layer's inputs",
    "kasa_config": "KaSA, which changes the base model too",
    "arrow_config": "Arrow, which chooses between several adapters",
    "alora_invocation_tokens": "activated LoRA, which is for language models",
}


def test_every_variant_of_lora_has_a_verdict() -> None:
    from dataclasses import fields

    from peft import LoraConfig

    marked = {field.name for field in fields(LoraConfig) if field.metadata.get("is_lora_variant")}
    assert VARIANTS.keys() == marked | {"use_qalora"}  # which PEFT 0.21 does not mark


@pytest.mark.parametrize(("setting", "meaning"), [row for row in VARIANTS.items() if row[1] != "applied"])
def test_a_variant_that_is_not_applied_is_named(tmp_path: Path, setting: str, meaning: str) -> None:
    import peft

    path, *_ = peft_file(tmp_path, small_net(), peft.LoraConfig(r=4, target_modules=["to_q"]), only="lora_")
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {setting: {"some": 1}}))
    assert message_of(AdapterError, lambda: load_adapter(path)) == (
        f"adapter_model.safetensors: adapter_config.json: {setting} is set; the adapter is {meaning}, which is not "
        "supported"
    )

"""The same changes under other names, and how diffusers reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import Adapter, load_adapter
from lorablend.adapters.errors import AdapterError, InputError, RequestError
from lorablend.adapters.tools.rename import rename
from tests.adapter_files import (
    SD15_SHAPES,
    SDXL_SHAPES,
    Stored,
    kohya_key,
    message_of,
    random_factors,
    write_kohya,
    write_peft,
    write_tensors,
)
from tests.adapters.tools.tool_files import CONV, TO_Q, flat_deltas, largest_error, locon, lora


def assert_same(one: Adapter, other: Adapter, tolerance: float = 0.0) -> None:
    assert one.base_model == other.base_model
    assert largest_error(flat_deltas(other), flat_deltas(one)) <= tolerance


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_kohya_to_diffusers_and_back(tmp_path: Path, dtype: str) -> None:
    a = lora(tmp_path / "a.safetensors", 1, dtype=dtype)  # alpha 2, rank 4: every type represents this scale
    report = rename(a, tmp_path / "d.safetensors", "diffusers")
    d = load_adapter(report.path)
    assert report.tensors == 2 * len(SDXL_SHAPES)
    assert sorted(report.left_out) == []
    assert {tensor.dtype for tensor in d.file.tensors.values()} == {dtype}
    assert f"{'.'.join(TO_Q)}.lora_A.weight" in d.file.tensors
    assert_same(a, d)
    k = load_adapter(rename(d, tmp_path / "k.safetensors", "kohya").path)
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight" in k.file.tensors
    assert_same(a, k)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_a_product_that_the_type_would_round_is_written_in_float32(tmp_path: Path, dtype: str) -> None:
    a = lora(tmp_path / "a.safetensors", 1, dtype=dtype, alpha=1.1)
    d = load_adapter(rename(a, tmp_path / "d.safetensors", "diffusers").path)
    assert {name[-13:]: tensor.dtype for name, tensor in d.file.tensors.items()} == {
        "lora_A.weight": dtype,
        "lora_B.weight": "F32",
    }
    assert_same(a, d)


@pytest.mark.parametrize("spelling", ["peft", "peft-named", "diffusers", "linear-layer", "processor"])
def test_from_every_spelling_of_diffusers(tmp_path: Path, spelling: str) -> None:
    factors = random_factors(alpha=2.0)
    a = load_adapter(write_peft(tmp_path / "a.safetensors", factors, spelling=spelling))
    assert_same(a, load_adapter(rename(a, tmp_path / "k.safetensors", "kohya").path))
    assert_same(a, load_adapter(rename(a, tmp_path / "d.safetensors", "diffusers").path))


@pytest.mark.parametrize("rslora", [False, True])
def test_a_scale_from_the_settings_becomes_an_alpha(tmp_path: Path, rslora: bool) -> None:
    settings = {"unet.lora_alpha": 3, "text_encoder.lora_alpha": 1, "text_encoder_2.lora_alpha": 4}
    settings |= {f"{name}.use_rslora": rslora for name in ("unet", "text_encoder", "text_encoder_2")}
    metadata = {"lora_adapter_metadata": json.dumps(settings), "ss_tag_frequency": "{}"}
    a = load_adapter(write_peft(tmp_path / "a.safetensors", random_factors(), metadata=metadata))
    k = load_adapter(rename(a, tmp_path / "k.safetensors", "kohya").path)
    alphas = {k.file.tensors[name].float32().item() for name in k.file.tensors if name.endswith(".alpha")}
    # alpha / √4 · 4; a scale of 1 needs no alpha
    assert alphas == ({6.0, 2.0, 8.0} if rslora else {3.0, 1.0})
    assert_same(a, k)
    assert "lora_adapter_metadata" not in k.metadata
    assert k.metadata["ss_tag_frequency"] == "{}"
    assert_same(a, load_adapter(rename(a, tmp_path / "d.safetensors", "diffusers").path))


def test_an_alpha_that_means_alpha_over_root_rank(tmp_path: Path) -> None:
    metadata = {"lora_adapter_metadata": json.dumps({"unet.use_rslora": True, "unet.lora_alpha": 8})}
    factors = random_factors({TO_Q: (64, 64)}, alpha=2.0)
    a = load_adapter(write_peft(tmp_path / "a.safetensors", factors, metadata=metadata))
    assert a.deltas[TO_Q].scale == 1  # 2 / √4
    k = load_adapter(rename(a, tmp_path / "k.safetensors", "kohya").path)
    assert k.deltas[TO_Q].alpha == 4
    assert_same(a, k)


def test_convolutions_keep_their_kernel(tmp_path: Path) -> None:
    a = locon(tmp_path / "a.safetensors", 1)
    d = load_adapter(rename(a, tmp_path / "d.safetensors", "diffusers").path)
    assert d.file.tensors[f"{'.'.join(CONV)}.lora_A.weight"].shape == (4, 32, 3, 3)
    assert_same(a, d)
    # An SD 1.5 file may have flat 1×1 convolutions; programs expect them with a kernel.
    flat = {module: shape[:2] for module, shape in SD15_SHAPES.items()}
    old = load_adapter(write_kohya(tmp_path / "old.safetensors", random_factors(flat), base="sd15"))
    k = load_adapter(rename(old, tmp_path / "k.safetensors", "kohya").path)
    name = "lora_unet_down_blocks_0_attentions_0_proj_in"
    assert k.file.tensors[f"{name}.lora_down.weight"].shape == (4, 320, 1, 1)
    assert k.file.tensors["lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight"].shape == (768, 4)
    assert_same(old, k)


def loha(path: Path, **more: np.ndarray) -> Adapter:
    shapes = {"hada_w1_a": (64, 2), "hada_w1_b": (2, 64), "hada_w2_a": (64, 2), "hada_w2_b": (2, 64)}
    random = np.random.default_rng(1)
    tensors: dict[str, Stored] = {
        f"{kohya_key(TO_Q)}.{role}": ("F32", random.normal(0, 0.3, shape).astype("f4"))
        for role, shape in shapes.items()
    }
    tensors[f"{kohya_key(TO_Q)}.alpha"] = "F32", np.float32(1).reshape(())
    return load_adapter(write_tensors(path, {**tensors, **{name: ("F32", value) for name, value in more.items()}}))


def test_every_algorithm_has_kohya_names(tmp_path: Path) -> None:
    word = np.ones((2, 768), np.float32)
    a = loha(tmp_path / "a.safetensors", **{
        f"{kohya_key(CONV)}.diff": np.ones((64, 32, 3, 3), np.float32),
        f"{kohya_key(CONV)}.diff_b": np.ones(64, np.float32),
        "bundle_emb.ink.clip_l": word,
        "bundle_emb.ink.clip_g": np.ones((2, 1280), np.float32),
        "lora_unet_mid_block_attentions_0_norm.w_norm": np.ones(128, np.float32),
    })  # fmt: skip
    k = load_adapter(rename(a, tmp_path / "k.safetensors", "kohya").path)
    assert len(k.file.tensors) == len(a.file.tensors)
    assert k.deltas.keys() == a.deltas.keys()
    assert k.biases.keys() == a.biases.keys()
    weights = {TO_Q: (64, 64), CONV: (64, 32, 3, 3), ("unet", "mid_block.attentions.0.norm"): (128,)}
    for module, shape in weights.items():
        weight = np.ones(shape, np.float32)
        np.testing.assert_array_equal(k.deltas[module].dense(weight), a.deltas[module].dense(weight))
    np.testing.assert_array_equal(k.embeddings["ink"]["text_encoder"], word)


def dora(path: Path, magnitude: Mapping[str, np.ndarray]) -> Adapter:
    factors = random_factors({TO_Q: (64, 64)}, alpha=2.0)[TO_Q]
    key = kohya_key(TO_Q)
    down, up = factors.stored("F32")
    tensors: dict[str, Stored] = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
    tensors[f"{key}.alpha"] = "F32", np.float32(2).reshape(())
    return load_adapter(
        write_tensors(path, {**tensors, **{f"{key}.{role}": ("F32", value) for role, value in magnitude.items()}})
    )


def test_dora_both_ways(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    weight, magnitude = random.normal(size=(64, 64)).astype("f4"), random.random((64, 1)).astype("f4") + 1
    a = dora(tmp_path / "a.safetensors", {"dora_scale": magnitude})
    d = load_adapter(rename(a, tmp_path / "d.safetensors", "diffusers").path)
    assert d.file.tensors[f"{'.'.join(TO_Q)}.lora_magnitude_vector"].shape == (64,)
    np.testing.assert_array_equal(d.deltas[TO_Q].dense(weight), a.deltas[TO_Q].dense(weight))
    k = load_adapter(rename(d, tmp_path / "k.safetensors", "kohya").path)
    np.testing.assert_array_equal(k.deltas[TO_Q].dense(weight), a.deltas[TO_Q].dense(weight))
    (scale,) = (tensor for name, tensor in k.file.tensors.items() if name.endswith(".dora_scale"))
    assert scale.shape == (64, 1)


@pytest.mark.parametrize("bias", [False, True])
def test_diffusers_loads_it(sdxl_source: Path, tmp_path: Path, bias: bool) -> None:
    pytest.importorskip("peft")
    from diffusers import UNet2DConditionModel

    from tests.adapter_files import peft_deltas

    key = kohya_key(TO_Q)
    factors = random_factors({TO_Q: (64, 64)}, alpha=1.0)[TO_Q]
    down, up = factors.stored("F32")
    tensors: dict[str, Stored] = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
    tensors[f"{key}.alpha"] = "F32", np.float32(1).reshape(())
    if bias:
        tensors[f"{key}.lora_up.bias"] = "F32", np.arange(64, dtype=np.float32)
    a = load_adapter(write_tensors(tmp_path / "a.safetensors", tensors))
    rename(a, tmp_path / "d.safetensors", "diffusers")
    unet = UNet2DConditionModel.from_pretrained(sdxl_source / "unet")
    unet.load_lora_adapter(tmp_path, weight_name="d.safetensors", adapter_name="x", prefix="unet")
    assert largest_error(peft_deltas("unet", unet, "x"), flat_deltas(a)) < 1e-6
    if bias:
        layer: Any = unet.get_submodule(TO_Q[1])
        np.testing.assert_allclose(layer.lora_B["x"].bias.detach(), np.arange(64) / 4, rtol=1e-6)


def test_tensors_that_change_nothing_are_left_out(tmp_path: Path) -> None:
    factors = random_factors({TO_Q: (64, 64)})[TO_Q]
    key, empty = kohya_key(TO_Q), kohya_key(CONV)
    down, up = factors.stored("F32")
    tensors: dict[str, Stored] = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
    tensors |= {
        f"{empty}.lora_down.weight": ("F32", np.zeros((0, 32, 3, 3), "f4")),
        f"{empty}.lora_up.weight": ("F32", np.zeros((64, 0, 1, 1), "f4")),
    }
    a = load_adapter(write_tensors(tmp_path / "a.safetensors", tensors))
    report = rename(a, tmp_path / "k.safetensors", "kohya")
    assert report.tensors == 2
    assert report.left_out == (f"{empty}.lora_down.weight", f"{empty}.lora_up.weight")


def test_refusals(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    a = loha(tmp_path / "a.safetensors")
    key = kohya_key(TO_Q)

    def remedy(names: str, more: str = "") -> str:
        return (
            "a LoRA can have the same effect; go on with: lorablend adapters resize "
            f"{{}} --names {names} --keep 1{more} --out {{}}"
        )

    assert message_of(AdapterError, lambda: rename(a, out, "diffusers")) == (
        f"a: diffusers' names cannot express tensor {key}.hada_w1_a; "
        + remedy("diffusers").format(a.path, tmp_path / "a-lora.safetensors")
    )
    inputs = dora(tmp_path / "i.safetensors", {"dora_scale": np.ones((1, 64), np.float32)})
    assert message_of(AdapterError, lambda: rename(inputs, out, "diffusers")) == (
        f"i: diffusers' names cannot express tensor {key}.dora_scale; "
        + remedy("diffusers", " --model MODEL").format(inputs.path, tmp_path / "i-lora.safetensors")
    )
    l = np.ones(64, np.float32)  # noqa: E741 - the name that PEFT has for it
    ia3 = load_adapter(write_tensors(tmp_path / "l.safetensors", {f"{'.'.join(TO_Q)}.ia3_l": ("F32", l[:, None])}))
    assert message_of(AdapterError, lambda: rename(ia3, out, "kohya")) == (
        f"l: kohya's names cannot express tensor {'.'.join(TO_Q)}.ia3_l; blend or bake it as it is"
    )
    words: Any = "a1111"
    assert message_of(RequestError, lambda: rename(a, out, words)) == "naming is a1111; give kohya or diffusers"
    assert message_of(InputError, lambda: rename(a, a.path, "kohya")) == (
        f"{a.path} is already there; choose another name or delete it"
    )
    tensors: dict[str, Stored] = {name: (t.dtype, t.array) for name, t in a.file.tensors.items()}
    write_tensors(tmp_path / "odd.safetensors", {**tensors, "odd": ("F32", l)})
    odd = load_adapter(tmp_path / "odd.safetensors", lenient=True)
    assert message_of(AdapterError, lambda: rename(odd, out, "kohya")) == (
        "odd was read leniently, and 1 tensor: odd would be lost; read it strictly, or remove them from the file"
    )
    text = ("text_encoder", "text_model.encoder.layers.0.self_attn.q_proj")
    unknown = load_adapter(write_peft(tmp_path / "u.safetensors", random_factors({text: (768, 768)})))
    assert unknown.base_model == "unknown"
    assert message_of(AdapterError, lambda: rename(unknown, out, "kohya")) == (
        "the file does not say whether it is for SD 1.5 or SDXL, and kohya's names of text encoders differ; "
        "use diffusers' names"
    )
    assert not out.exists()

"""From files to deltas: every spelling gives the same change, and messages name what cannot be applied."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorablend.adapters import Adapter, load_adapter
from lorablend.adapters.errors import AdapterError, BaseModelError
from tests.adapter_files import (
    PEFT_SPELLINGS,
    SD15_SHAPES,
    SDXL_SHAPES,
    Factors,
    Module,
    Stored,
    encode,
    kohya_key,
    message_of,
    random_factors,
    result_or_message,
    write_kohya,
    write_peft,
    write_tensors,
)

Q = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
DOWN, UP = np.full((2, 6), 0.5, np.float32), np.full((4, 2), 0.25, np.float32)
PAIR: dict[str, Stored] = {f"{Q}.lora_A.weight": ("F32", DOWN), f"{Q}.lora_B.weight": ("F32", UP)}


def f32(*shape: int) -> Stored:
    return "F32", np.ones(shape, np.float32)


def loaded(tmp_path: Path, tensors: dict[str, Stored], **metadata: str) -> Adapter:
    return load_adapter(write_tensors(tmp_path / "x.safetensors", tensors, metadata))


def refusal(tmp_path: Path, tensors: dict[str, Stored], error: type[Exception] = AdapterError, **metadata: str) -> str:
    return message_of(error, lambda: loaded(tmp_path, tensors, **metadata))


def assert_exactly(adapter: Adapter, factors: dict[Module, Factors]) -> None:
    """Assert that the deltas are bit for bit (alpha / rank · up) · down."""
    assert set(adapter.deltas) == set(factors)
    for module, delta in adapter.deltas.items():
        lora = factors[module]
        rank = len(lora.down)
        scale = 1.0 if lora.alpha is None else lora.alpha / rank
        assert (delta.algorithm, delta.rank, delta.alpha, delta.scale) == ("lora", rank, lora.alpha, scale)
        assert (delta.in_features, delta.out_features) == (lora.down.shape[1], lora.up.shape[0])
        assert delta.fits((len(lora.up), lora.down.shape[1]))
        down, up = delta.factors() or (None, None)
        np.testing.assert_array_equal(down, lora.down, strict=True)
        np.testing.assert_array_equal(up, lora.up * np.float32(scale), strict=True)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
@pytest.mark.parametrize("alpha", [None, 1.0, 8.0])
def test_kohya_and_sgm_and_peft_spellings_give_the_same_bits(tmp_path: Path, dtype: str, alpha: float | None) -> None:
    factors = random_factors(alpha=alpha)
    assert_exactly(load_adapter(write_kohya(tmp_path / "a.safetensors", factors, dtype=dtype)), factors)
    assert_exactly(load_adapter(write_kohya(tmp_path / "b.safetensors", factors, naming="sgm", dtype=dtype)), factors)
    for spelling in PEFT_SPELLINGS:
        assert_exactly(load_adapter(write_peft(tmp_path / "c", factors, spelling=spelling, dtype=dtype)), factors)
    assert_exactly(
        load_adapter(write_peft(tmp_path / "d", factors, prefix="base_model.model.", text_model=False)), factors
    )


def test_sd15_kohya_names(tmp_path: Path) -> None:
    factors = random_factors(SD15_SHAPES, alpha=2)
    for naming in ("diffusers", "sgm"):
        adapter = load_adapter(write_kohya(tmp_path / "x", factors, naming=naming, base="sd15"))
        assert_exactly(adapter, factors)
        assert adapter.base_model == "sd15"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(["F16", "BF16", "F32"]),
    rank=st.integers(1, 200),
    alpha=st.none() | st.sampled_from([0.0, 0.5, 1, 8, 64, 128, -4]),
    alpha_shape=st.sampled_from([(), (1,), (1, 1)]),
    alpha_dtype=st.sampled_from(["F16", "BF16", "F32", "F64"]),
    naming=st.sampled_from(["diffusers", "sgm"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_round_trip(
    tmp_path: Path,
    dtype: str,
    rank: int,
    alpha: float | None,
    alpha_shape: tuple[int, ...],
    alpha_dtype: str,
    naming,
    seed: int,
) -> None:
    factors = random_factors(SDXL_SHAPES, rank, alpha, seed)
    path = write_kohya(
        tmp_path / "x", factors, naming=naming, dtype=dtype, alpha_shape=alpha_shape, alpha_dtype=alpha_dtype
    )
    assert_exactly(load_adapter(path), factors)


def test_both_spellings_of_different_modules_in_one_file(tmp_path: Path) -> None:
    factors = random_factors()
    tensors: dict[str, Stored] = {}
    for index, (module, lora) in enumerate(factors.items()):
        key = kohya_key(module, "sgm" if index % 2 else "diffusers")
        tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"] = lora.stored("F32")
    assert_exactly(loaded(tmp_path, tensors), factors)


def test_both_spellings_of_one_module(tmp_path: Path) -> None:
    sgm = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q"
    split = {f"{Q}.lora_A.weight": ("F32", DOWN), f"{sgm}.lora_up.weight": ("F32", UP)}
    assert len(loaded(tmp_path, split).deltas) == 1

    twice = loaded(tmp_path, PAIR | {f"{sgm}.lora_up.weight": ("F32", UP)})
    assert len(twice.deltas) == 1
    assert twice.warnings == (f"stored twice, used once: 1 tensor: {sgm}.lora_up.weight",)

    assert refusal(tmp_path, PAIR | {f"{sgm}.lora_up.weight": ("F32", 2 * UP)}) == (
        f"x.safetensors: tensors {Q}.lora_B.weight and {sgm}.lora_up.weight belong to the same module, but differ"
    )


@pytest.mark.parametrize(("down", "up"), [((1, 1), ()), ((), (1, 1)), ((1, 1), (1, 1))])
def test_a_1x1_convolution_may_be_stored_with_two_or_four_dimensions(tmp_path: Path, down, up) -> None:
    tensors = {
        "lora_unet_up_blocks_1_resnets_0_conv_shortcut.lora_down.weight": ("F32", DOWN.reshape(2, 6, *down)),
        "lora_unet_up_blocks_1_resnets_0_conv_shortcut.lora_up.weight": ("F32", UP.reshape(4, 2, *up)),
    }
    (delta,) = loaded(tmp_path, tensors).deltas.values()
    assert delta.fits((4, 6, 1, 1))
    assert delta.fits((4, 6))
    np.testing.assert_array_equal(delta.dense(np.empty((4, 6, 1, 1))), np.full((4, 6, 1, 1), 0.25, np.float32))
    np.testing.assert_array_equal(delta.dense(np.empty((4, 6))), np.full((4, 6), 0.25, np.float32))


@pytest.mark.parametrize(
    ("shape", "text"), [((4, 5), "4×5"), ((6, 4), "6×4"), ((4, 6, 3, 3), "4×6×3×3"), ((24,), "24")]
)
def test_dense_refuses_another_shape(tmp_path: Path, shape: tuple[int, ...], text: str) -> None:
    (delta,) = loaded(tmp_path, PAIR).deltas.values()
    assert message_of(AdapterError, lambda: delta.dense(np.empty(shape))) == (
        "unet mid_block.attentions.0.transformer_blocks.0.attn1.to_q: "
        f"the adapter changes a weight of 4×6, but the model's is {text}"
    )


@pytest.mark.parametrize(("dtype", "name"), [("F16", "f16"), ("BF16", "bf16"), ("F32", "f32")])
def test_raw_factors_are_views_of_the_file(tmp_path: Path, dtype: str, name: str) -> None:
    factors = random_factors({("unet", "mid_block.attentions.0.proj_in"): (8, 6, 1, 1)}, rank=2, alpha=1)
    adapter = load_adapter(write_kohya(tmp_path / "x", factors, dtype=dtype))
    (delta,) = adapter.deltas.values()
    (lora,) = factors.values()
    raw = delta.raw_factors()
    assert raw is not None
    assert (delta.dtype, raw.scale) == (name, 0.5)
    for view, factor in ((raw.down, lora.down), (raw.up, lora.up)):
        assert not view.flags.owndata
        np.testing.assert_array_equal(view, encode(factor, dtype), strict=True)


def test_raw_factors_of_two_dtypes_are_float32(tmp_path: Path) -> None:
    tensors = PAIR | {f"{Q}.lora_A.weight": ("F16", DOWN.astype(np.float16))}
    (delta,) = loaded(tmp_path, tensors).deltas.values()
    raw = delta.raw_factors()
    assert raw is not None
    assert delta.dtype == "f32"
    np.testing.assert_array_equal(raw.down, DOWN, strict=True)


def test_factors_can_be_computed_again(tmp_path: Path) -> None:
    for dtype in ("F16", "F32"):
        adapter = load_adapter(write_kohya(tmp_path / "x", random_factors(alpha=1), dtype=dtype))
        for delta in adapter.deltas.values():
            first, second = delta.factors(), delta.factors()
            assert first is not None
            assert second is not None
            np.testing.assert_array_equal(first[1], second[1])


def test_the_properties_of_an_adapter(tmp_path: Path) -> None:
    adapter = loaded(tmp_path, PAIR, note="hello")
    assert adapter.name == "x"
    assert adapter.path == tmp_path / "x.safetensors"
    assert adapter.metadata == {"note": "hello"}
    assert adapter.tensor_count == 2
    assert adapter.size == adapter.path.stat().st_size
    assert (adapter.ignored, adapter.warnings) == ((), ())


def test_bookkeeping_of_slider_trainers_is_ignored_by_name(tmp_path: Path) -> None:
    assert loaded(tmp_path, PAIR | {"_aux.step": f32(1)}).ignored == ("_aux.step",)


def test_an_alpha_of_zero_is_used_with_a_warning(tmp_path: Path) -> None:
    adapter = loaded(tmp_path, PAIR | {f"{Q}.alpha": ("F32", np.zeros(1, np.float32))})
    (delta,) = adapter.deltas.values()
    assert not delta.dense(np.empty((4, 6))).any()
    assert adapter.warnings == ("alpha is 0 in 1 of 1 modules, which therefore change nothing",)


def test_modules_of_rank_0_change_nothing(tmp_path: Path) -> None:
    empty = {"unet.conv_in.lora_A.weight": f32(0, 4), "unet.conv_in.lora_B.weight": f32(8, 0)}
    assert len(loaded(tmp_path, PAIR | empty).deltas) == 1
    assert refusal(tmp_path, empty) == "x.safetensors: every module has rank 0, so there is nothing to apply"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{Q}.lora_A.weight": f32(2, 6)}, f"{Q[:4]} {Q[5:]}: no up for 1 tensor: {Q}.lora_A.weight"),
        ({f"{Q}.lora_B.weight": f32(4, 2)}, f"{Q[:4]} {Q[5:]}: no down for 1 tensor: {Q}.lora_B.weight"),
        ({f"{Q}.alpha": f32()}, f"{Q[:4]} {Q[5:]}: no down and no up for 1 tensor: {Q}.alpha"),
        (PAIR | {f"{Q}.lora_A.weight": f32(3, 6)}, f"{Q[:4]} {Q[5:]}: down has rank 3, up has rank 2"),
        (
            PAIR | {f"{Q}.lora_A.weight": f32(6)},
            f"tensor {Q}.lora_A.weight has shape [6]; expected 2 or 4 dimensions",
        ),
        (
            PAIR | {f"{Q}.lora_A.weight": f32(2, 6, 1)},
            f"tensor {Q}.lora_A.weight has shape [2, 6, 1]; expected 2 or 4 dimensions",
        ),
        (
            PAIR | {f"{Q}.lora_B.weight": f32(4, 2, 3, 3)},
            f"tensor {Q}.lora_B.weight has shape [4, 2, 3, 3]; expected a matrix",
        ),
        (
            PAIR | {f"{Q}.lora_A.weight": ("F64", DOWN.astype("<f8"))},
            f"tensor {Q}.lora_A.weight is F64: save it as F16, BF16 or F32",
        ),
        (
            PAIR | {f"{Q}.lora_A.weight": ("F8_E8M0", np.zeros((2, 6), np.uint8))},
            f"tensor {Q}.lora_A.weight is F8_E8M0: save it as F16, BF16 or F32",
        ),
        (
            PAIR | {f"{Q}.alpha": f32(2)},
            f"{Q[:4]} {Q[5:]}: tensor {Q}.alpha has shape [2]; expected one number",
        ),
        (PAIR | {f"{Q}.alpha": f32(0)}, f"{Q[:4]} {Q[5:]}: tensor {Q}.alpha has shape [0]; expected one number"),
        (
            PAIR | {f"{Q}.alpha": ("BOOL", np.ones(1, np.uint8))},
            f"tensor {Q}.alpha is BOOL: save it as F16, BF16 or F32",
        ),
        (
            PAIR | {f"{Q}.alpha": ("F16", np.full(1, np.inf, np.float16))},
            f"tensor {Q}.alpha contains NaN or infinity; the file is unusable",
        ),
        (PAIR | {f"{Q}.alpha": ("F64", np.full(1, 1e300))}, f"{Q[:4]} {Q[5:]}: scale 5e+299 does not fit float32"),
        (
            PAIR | {f"{Q}.lora_B.weight": ("F32", np.full((4, 2), np.nan, np.float32))},
            f"tensor {Q}.lora_B.weight contains NaN or infinity; the file is unusable",
        ),
        (PAIR | {"mystery": f32(1), "unet.what": f32(1)}, "unknown algorithm in 2 tensors: mystery, unet.what"),
        (
            PAIR | {f"unet.block{n}.lora_A.weight": f32(2, 6) for n in range(5)},
            "no module of SD 1.5, SD 2 or SDXL matches 5 tensors: "
            "unet.block0.lora_A.weight, unet.block1.lora_A.weight, unet.block2.lora_A.weight, …",
        ),
        ({"_aux.step": f32(1)}, "the file has no adapter tensors"),
        (
            {"conv_in.weight": f32(1), "conv_in.bias": f32(1)},
            "a full model, not an adapter: its tensors are plain weights",
        ),
        ({"model.diffusion_model.out.2.weight": f32(1)}, "a full checkpoint, not a LoRA adapter"),
        ({"lora_controlnet": f32(1)}, "a Control-LoRA, not a LoRA adapter"),
        ({"lllite_unet_x.down.0.weight": f32(1)}, "a ControlNet-LLLite, not a LoRA adapter"),
        ({"image_proj.proj.weight": f32(1)}, "an IP-Adapter, not a LoRA adapter"),
        ({"a.attn2.processor.to_k_custom_diffusion.weight": f32(1)}, "a Custom Diffusion file, not a LoRA adapter"),
        ({"unet:0:up": f32(1)}, "a file of the first LoRA tool, which does not name its modules, not a LoRA adapter"),
        ({"emb_params": f32(1)}, "a textual inversion, not a LoRA adapter"),
        ({"clip_l": f32(1), "clip_g": f32(1)}, "a textual inversion, not a LoRA adapter"),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, tensors: dict[str, Stored], message: str) -> None:
    assert refusal(tmp_path, tensors) == f"x.safetensors: {message}"


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("lora_prior_unet_down_blocks_0_1_attention.lora_down.weight", "Stable Cascade"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "FLUX"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "FLUX"),
        ("double_blocks.0.img_attn_qkv.lora_A.weight", "HunyuanVideo"),
        ("lora_unet_joint_blocks_0_context_block_attn_qkv.lora_down.weight", "Stable Diffusion 3"),
        ("transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight", "Stable Diffusion 3"),
        ("lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight", "Stable Diffusion 3"),
        ("transformer.adaln_single.linear.lora_A.weight", "PixArt"),
        ("diffusion_model.blocks.0.cross_attn.k.lora_A.weight", "Wan"),
        ("lora_unet__blocks_0_cross_attn_k.lora_down.weight", "Wan"),
        ("transformer.transformer_blocks.0.img_mlp.net.2.lora_A.weight", "Qwen-Image"),
        ("diffusion_model.noise_refiner.0.attention.to_q.lora_A.weight", "Lumina or Z-Image"),
        ("unet.down_blocks.0.motion_modules.0.proj_in.lora_A.weight", "AnimateDiff"),
        ("transformer.blocks.0.attn.lora_A.weight", "a diffusion transformer"),
    ],
)
def test_adapters_of_other_models_are_named(tmp_path: Path, name: str, base: str) -> None:
    assert refusal(tmp_path, PAIR | {name: f32(2, 6)}, BaseModelError) == (
        f"x.safetensors: made for {base} (tensor {name}); lorablend runs SD 1.5 and SDXL models"
    )


def test_names_without_a_text_encoder_mean_the_folders_or_the_width(tmp_path: Path) -> None:
    tensors = {
        "base_model.model.text_model.encoder.layers.0.mlp.fc1.lora_A.weight": f32(2, 6),
        "base_model.model.text_model.encoder.layers.0.mlp.fc1.lora_B.weight": f32(4, 2),
    }
    for folder, component in (
        ("text_encoder", "text_encoder"),
        ("text_encoder_2", "text_encoder_2"),
        ("x", "text_encoder"),
    ):
        (tmp_path / folder).mkdir()
        assert list(loaded(tmp_path / folder, tensors).deltas) == [(component, "text_model.encoder.layers.0.mlp.fc1")]
    tensors["base_model.model.text_model.encoder.layers.0.mlp.fc1.lora_A.weight"] = f32(2, 1280)
    assert {component for component, _ in loaded(tmp_path, tensors).deltas} == {"text_encoder_2"}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_adapters_are_loaded_or_refused(tmp_path: Path, edits: list[tuple[int, int]]) -> None:
    factors = random_factors({("unet", "mid_block.attentions.0.proj_in"): (8, 6)}, alpha=1)
    metadata = {"lora_adapter_metadata": '{"unet.lora_alpha": 2, "unet.alpha_pattern": {"to_q": 1}}'}
    content = bytearray(write_kohya(tmp_path / "x", factors, metadata=metadata).read_bytes())
    for position, value in edits:
        content[position % len(content)] = value
    (tmp_path / "y").write_bytes(content)
    result_or_message((AdapterError, BaseModelError), lambda: load_adapter(tmp_path / "y"))

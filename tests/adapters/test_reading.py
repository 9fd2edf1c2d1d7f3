"""Files with more than LoRA, several algorithms in one file, lenient reading, and the count of every tensor."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorablend.adapters import Adapter, inspect_adapter, load_adapter
from lorablend.adapters.errors import AdapterError, BaseModelError, LorablendError
from tests.adapter_files import Stored, encode, message_of, write_tensors
from tests.adapters.algorithms.deltas import normal

Q = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
PAIR: dict[str, Stored] = {
    f"unet.{Q}.lora_A.weight": ("F32", normal(2, 6)),
    f"unet.{Q}.lora_B.weight": ("F32", normal(4, 2)),
}


def f32(*shape: int) -> Stored:
    return "F32", normal(*shape)


def loaded(tmp_path: Path, tensors: dict[str, Stored], *, lenient: bool = False, **metadata: str) -> Adapter:
    """Load the file, and assert that every tensor is counted once."""
    adapter = load_adapter(write_tensors(tmp_path / "x.safetensors", tensors, metadata), lenient=lenient)
    report = inspect_adapter(adapter)
    assert report["covered"] + len(report["ignored"]) + len(report["refused"]) == report["tensor_count"] == len(tensors)
    assert adapter.covered == report["covered"]
    assert not set(adapter.ignored) & set(adapter.refused)
    return adapter


def refusal(tmp_path: Path, tensors: dict[str, Stored], *, lenient: bool = False) -> str:
    return message_of(AdapterError, lambda: loaded(tmp_path, tensors, lenient=lenient)).removeprefix("x.safetensors: ")


def flat(path: str) -> str:
    return f"lora_unet_{path.replace('.', '_')}"


RESNET, BLOCK = "down_blocks.1.resnets.0", "mid_block.attentions.0.transformer_blocks.0"
EVERYTHING: dict[str, tuple[str, dict[str, Stored]]] = {
    "lora": (Q, {"lora_down.weight": f32(2, 6), "lora_up.weight": f32(4, 2), "alpha": f32()}),
    "locon": (f"{RESNET}.conv1", {"lora_down.weight": f32(2, 3, 3, 3), "lora_up.weight": f32(4, 2, 1, 1)}),
    "loha": (f"{BLOCK}.attn1.to_k", {f"hada_w{n}_{s}": f32(*((4, 2), (2, 6))[s == "b"]) for n in (1, 2) for s in "ab"}),
    "lokr": (f"{BLOCK}.attn1.to_v", {"lokr_w1": f32(2, 3), "lokr_w2_a": f32(4, 1), "lokr_w2_b": f32(1, 2)}),
    "dora": (
        f"{BLOCK}.attn1.to_out.0",
        {"lora_down.weight": f32(2, 6), "lora_up.weight": f32(4, 2), "dora_scale": f32(4, 1)},
    ),
    "glora": (
        f"{BLOCK}.attn2.to_q",
        {"a1.weight": f32(6, 2), "a2.weight": f32(2, 6), "b1.weight": f32(4, 2), "b2.weight": f32(2, 6)},
    ),
    "ia3": (f"{BLOCK}.attn2.to_k", {"weight": f32(4), "on_input": ("F32", np.zeros((), np.float32))}),
    "oft": (f"{BLOCK}.attn2.to_v", {"oft_blocks": f32(2, 2, 2), "alpha": f32()}),
    "boft": (f"{BLOCK}.attn2.to_out.0", {"oft_blocks": f32(2, 4, 2, 2)}),
    "full": (f"{BLOCK}.ff.net.2", {"diff": f32(4, 6), "diff_b": f32(4)}),
    "norm": (f"{BLOCK}.norm1", {"w_norm": f32(6), "b_norm": f32(6)}),
}


def tensors_of(*algorithms: str) -> dict[str, Stored]:
    return {
        f"{flat(path)}.{role}": stored
        for path, roles in (EVERYTHING[algorithm] for algorithm in algorithms)
        for role, stored in roles.items()
    }


def test_every_algorithm_in_one_file(tmp_path: Path) -> None:
    adapter = loaded(tmp_path, tensors_of(*EVERYTHING))
    expected = {("unet", path): "lora" if name == "locon" else name for name, (path, _) in EVERYTHING.items()}
    assert {module: delta.algorithm for module, delta in adapter.deltas.items()} == expected
    assert set(adapter.biases) == {("unet", f"{BLOCK}.ff.net.2"), ("unet", f"{BLOCK}.norm1")}
    assert adapter.covered == adapter.tensor_count
    report = inspect_adapter(adapter)
    assert report["algorithms"]["lora"] == 2
    assert report["biases"] == {"unet": 2}
    assert None in report["components"]["unet"]["ranks"]


def test_a_change_of_a_bias_alone(tmp_path: Path) -> None:
    adapter = loaded(tmp_path, {f"{flat(RESNET)}_conv1.diff_b": f32(4), f"{flat(RESNET)}_conv1.alpha": f32()})
    assert (dict(adapter.deltas), list(adapter.biases)) == ({}, [("unet", f"{RESNET}.conv1")])


def test_an_empty_change_of_a_bias_is_ignored(tmp_path: Path) -> None:
    empty = {f"{flat(RESNET)}_conv1.diff_b": f32(0)}
    assert loaded(tmp_path, PAIR | empty).ignored == tuple(empty)


def test_a_residual_without_a_lora_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, PAIR | {"unet.conv_in.bias_values": f32(2)}) == (
        "unet conv_in: sparse residual is not supported: 1 tensor: unet.conv_in.bias_values"
    )


@pytest.mark.parametrize("spelling", ["lora_up.bias", "lora_B.bias", "lora_B.default.bias"])
def test_the_bias_of_a_lora(tmp_path: Path, spelling: str) -> None:
    bias = normal(4, seed=5)
    tensors = PAIR | {f"unet.{Q}.{spelling}": ("F32", bias), f"unet.{Q}.alpha": ("F32", np.ones(1, np.float32))}
    adapter = loaded(tmp_path, tensors)
    np.testing.assert_array_equal(adapter.biases["unet", Q].dense(np.zeros(4, np.float32)), bias / 2)


def test_pefts_biases_replace(tmp_path: Path) -> None:
    """With bias="all", PEFT saves the biases of wrapped modules under `base_layer`."""
    bias = normal(4, seed=5)
    adapter = loaded(tmp_path, PAIR | {f"unet.{Q}.base_layer.bias": ("F32", bias), "unet.conv_in.bias": f32(8)})
    np.testing.assert_array_equal(adapter.biases["unet", Q].dense(np.ones(4, np.float32)), bias - 1)
    assert ("unet", "conv_in") in adapter.biases


def test_whole_layers_next_to_a_lora_replace(tmp_path: Path) -> None:
    """ai-toolkit's conv_in and conv_out, PEFT's modules_to_save."""
    tensors = PAIR | {
        "unet_conv_in.weight": f32(8, 4, 3, 3),
        "unet_conv_in.bias": f32(8),
        "unet.conv_out.weight": f32(4, 8, 3, 3),
    }
    adapter = loaded(tmp_path, tensors)
    weight = normal(8, 4, 3, 3, seed=7)
    change = adapter.deltas["unet", "conv_in"].dense(weight)
    np.testing.assert_array_equal(change, tensors["unet_conv_in.weight"][1] - weight)
    assert adapter.deltas["unet", "conv_out"].algorithm == "full"
    assert list(adapter.biases) == [("unet", "conv_in")]


def test_a_file_with_only_downs_is_ai_toolkits_fullrank(tmp_path: Path) -> None:
    difference = normal(4, 6)
    (delta,) = loaded(tmp_path, {f"{flat(Q)}.lora_down.weight": ("F32", difference)}).deltas.values()
    np.testing.assert_array_equal(delta.dense(np.zeros((4, 6), np.float32)), difference)
    assert refusal(tmp_path, PAIR | {f"{flat(f'{BLOCK}.attn1.to_k')}.lora_down.weight": f32(4, 6)}) == (
        f"unet {BLOCK}.attn1.to_k: no up for 1 tensor: {flat(f'{BLOCK}.attn1.to_k')}.lora_down.weight"
    )


def test_bundled_embeddings(tmp_path: Path) -> None:
    tensors = PAIR | {"bundle_emb.ink.clip_l": f32(2, 768), "bundle_emb.ink.clip_g": f32(2, 1280)}
    adapter = loaded(tmp_path, tensors)
    assert {name: dict(parts).keys() for name, parts in adapter.embeddings.items()} == {
        "ink": {"text_encoder": 0, "text_encoder_2": 0}.keys()
    }
    np.testing.assert_array_equal(adapter.embeddings["ink"]["text_encoder"], tensors["bundle_emb.ink.clip_l"][1])
    assert inspect_adapter(adapter)["embeddings"] == {"ink": {"text_encoder": 2, "text_encoder_2": 2}}
    assert adapter.base_model == "sdxl"
    assert adapter.covered == 4


@pytest.mark.parametrize("spelling", ["lora_embedding_A", "lora_embedding_A.default"])
def test_a_lora_of_the_token_embedding(tmp_path: Path, spelling: str) -> None:
    path = "text_model.embeddings.token_embedding"
    tensors = {f"text_encoder.{path}.{spelling}": f32(2, 10), f"text_encoder.{path}.lora_embedding_B": f32(6, 2)}
    (delta,) = loaded(tmp_path, tensors).deltas.values()
    assert delta.fits((10, 6))


def test_an_alpha_alone_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, PAIR | {"unet.conv_in.alpha": f32()}) == (
        "unet conv_in: no down and no up for 1 tensor: unet.conv_in.alpha"
    )


def test_tensors_that_are_not_understood_are_named(tmp_path: Path) -> None:
    assert refusal(tmp_path, PAIR | {"unet.conv_in.reshape_weight": f32(4)}) == (
        "unet conv_in: base reshaping is not supported: 1 tensor: unet.conv_in.reshape_weight"
    )


@pytest.mark.parametrize(
    ("more", "left_out", "reason"),
    [
        ({"mystery": (1,)}, ["mystery"], "unknown algorithm in 1 tensor: mystery"),
        (
            {"unet.nowhere.lora_A.weight": (2, 6), "unet.nowhere.lora_B.weight": (4, 2)},
            ["unet.nowhere.lora_A.weight", "unet.nowhere.lora_B.weight"],
            "no module of SD 1.5, SD 2 or SDXL matches 2 tensors: "
            "unet.nowhere.lora_A.weight, unet.nowhere.lora_B.weight",
        ),
        (
            {"unet.conv_in.lora_A.weight": (2, 6), "unet.conv_in.lora_B.weight": (4, 3)},
            ["unet.conv_in.lora_A.weight", "unet.conv_in.lora_B.weight"],
            "unet conv_in: down has rank 2, up has rank 3",
        ),
        (
            {"bundle_emb.ink.clip_l": (2, 5, 1), "bundle_emb.oil.clip_l": (2, 768)},
            ["bundle_emb.ink.clip_l"],
            "tensor bundle_emb.ink.clip_l has shape [2, 5, 1]; expected [n, width]",
        ),
        ({"bundle_emb.clip_l": (2, 5)}, ["bundle_emb.clip_l"], "tensor bundle_emb.clip_l does not name an embedding"),
    ],
)
def test_leniently_a_module_is_left_out_as_a_whole(
    tmp_path: Path, more: dict[str, tuple[int, ...]], left_out: list[str], reason: str
) -> None:
    tensors = PAIR | {name: f32(*shape) for name, shape in more.items()}
    assert refusal(tmp_path, tensors) == reason
    adapter = loaded(tmp_path, tensors, lenient=True)
    assert list(adapter.deltas) == [("unet", Q)]
    assert list(adapter.refused) == left_out
    count = f"{len(left_out)} tensor{'s' * (len(left_out) > 1)}"
    assert adapter.warnings == (f"left out {count}: {', '.join(left_out)}: {reason}",)


def test_leniently_a_broken_tensor_removes_its_module(tmp_path: Path) -> None:
    bad = tensors_of("loha")
    name = next(iter(bad))
    bad[name] = ("F32", np.full((4, 2), np.nan, np.float32))
    adapter = loaded(tmp_path, PAIR | bad, lenient=True)
    assert set(adapter.refused) == set(bad)
    assert adapter.warnings[0].endswith(f": tensor {name} contains NaN or infinity; the file is unusable")


def test_leniently_an_unknown_tensor_removes_its_module(tmp_path: Path) -> None:
    strange = f"{flat(f'{RESNET}.conv1')}.lora_gain"
    adapter = loaded(tmp_path, PAIR | tensors_of("locon") | {strange: f32(4)}, lenient=True)
    assert set(adapter.refused) == {strange, *tensors_of("locon")}
    assert list(adapter.deltas) == [("unet", Q)]


def test_leniently_a_name_of_only_dots_takes_no_more_memory_than_others(tmp_path: Path) -> None:
    """All prefixes of the name together would take five gigabytes."""
    path = write_tensors(tmp_path / "x.safetensors", PAIR | tensors_of("locon") | {f"unet.{Q}{'.' * 100_000}x": f32(1)})
    tracemalloc.start()
    adapter = load_adapter(path, lenient=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(adapter.refused) == 3  # it may belong to the module before the first dot
    assert peak < 4 * adapter.size + 200_000


def test_leniently_a_module_with_two_contradicting_tensors_is_left_out(tmp_path: Path) -> None:
    sgm = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q.lora_up.weight"
    tensors = PAIR | {sgm: ("F32", normal(4, 2, seed=9))} | tensors_of("locon")
    adapter = loaded(tmp_path, tensors, lenient=True)
    assert set(adapter.refused) == {*PAIR, sgm}
    assert list(adapter.deltas) == [("unet", f"{RESNET}.conv1")]


@pytest.mark.parametrize("broken", ["alpha", "lora_up.weight"])
def test_leniently_a_duplicate_is_left_out_with_its_module(tmp_path: Path, broken: str) -> None:
    sgm = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q.alpha"
    alpha = ("F32", np.full(1, np.nan if broken == "alpha" else 1, np.float32))
    module = tensors_of("lora") | {f"{flat(Q)}.alpha": alpha, sgm: alpha}
    if broken == "lora_up.weight":
        module[f"{flat(Q)}.{broken}"] = ("F32", np.full((4, 2), np.inf, np.float32))
    adapter = loaded(tmp_path, module | tensors_of("locon"), lenient=True)
    assert (set(adapter.refused), adapter.ignored) == (set(module), ())
    assert [warning for warning in adapter.warnings if "twice" in warning] == []


@pytest.mark.parametrize("algorithm", ["lora", "locon", "loha", "lokr", "dora", "glora", "ia3"])
def test_a_change_that_overflows_float32_is_refused(tmp_path: Path, algorithm: str) -> None:
    """Each number is finite, but the change is not."""
    path, roles = EVERYTHING[algorithm]
    huge = {
        f"{flat(path)}.{role}": (dtype, array if role in ("on_input", "alpha") else np.float32(1e25) * array)
        for role, (dtype, array) in roles.items()
    }
    (delta,) = loaded(tmp_path, huge).deltas.values()
    shapes = {"locon": (4, 3, 3, 3), "lokr": (8, 6)}
    weight = np.full(shapes.get(algorithm, (4, 6)), 1e20, np.float32)
    assert message_of(AdapterError, lambda: delta.dense(weight)) == (
        f"unet {path}: the change does not fit float32; the file is unusable"
    )


def test_without_its_values_a_file_is_understood_from_its_header(tmp_path: Path) -> None:
    tensors = tensors_of(*EVERYTHING)
    whole = load_adapter(write_tensors(tmp_path / "whole.safetensors", tensors))
    for name, (dtype, array) in tensors.items():
        if array.ndim:  # except alpha and on_input, which decide what the others mean
            tensors[name] = dtype, np.full_like(array, np.nan)
    path = write_tensors(tmp_path / "x.safetensors", tensors)
    assert message_of(AdapterError, lambda: load_adapter(path)) == (
        f"x.safetensors: tensor {flat(Q)}.lora_down.weight contains NaN or infinity; the file is unusable"
    )
    unread = load_adapter(path, check_values=False)
    assert unread.deltas.keys() == whole.deltas.keys()
    assert unread.biases.keys() == whole.biases.keys()
    assert (unread.base_model, unread.covered) == (whole.base_model, whole.covered)


def test_leniently_a_file_with_nothing_usable_is_still_an_error(tmp_path: Path) -> None:
    assert refusal(tmp_path, {"mystery": f32(1)}, lenient=True) == (
        "no tensor in it is understood: unknown algorithm in 1 tensor: mystery"
    )


def test_leniently_another_kind_of_file_is_still_an_error(tmp_path: Path) -> None:
    assert (
        refusal(tmp_path, PAIR | {"image_proj.x.weight": f32(1)}, lenient=True) == "an IP-Adapter, not a LoRA adapter"
    )
    tensors = PAIR | {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": f32(1)}
    assert message_of(BaseModelError, lambda: loaded(tmp_path, tensors, lenient=True)).startswith(
        "x.safetensors: made for FLUX"
    )


def test_tensors_that_change_nothing_are_listed_as_ignored(tmp_path: Path) -> None:
    empty = {"unet.conv_in.lora_A.weight": f32(0, 4), "unet.conv_in.lora_B.weight": f32(8, 0)}
    assert loaded(tmp_path, PAIR | empty).ignored == tuple(empty)
    twice = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q.lora_up.weight"
    adapter = loaded(tmp_path, PAIR | {twice: PAIR[f"unet.{Q}.lora_B.weight"], "_aux.step": f32(1)})
    assert set(adapter.ignored) == {twice, "_aux.step"}


WIDE: dict[str, dict[str, tuple[int, ...]]] = {
    "lora": {"lora_down.weight": (64, 640), "lora_up.weight": (640, 64)},
    "dora": {"lora_down.weight": (64, 640), "lora_up.weight": (640, 64), "dora_scale": (640, 1)},
    "loha": {f"hada_w{n}_{s}": ((640, 32), (32, 640))[s == "b"] for n in (1, 2) for s in "ab"},
    "lokr": {"lokr_w1": (80, 80), "lokr_w2": (8, 8)},
    "glora": {f"{s}{n}.weight": ((640, 16), (16, 640))[n - 1] for s in "ab" for n in (1, 2)},
    "ia3": {"weight": (640,), "on_input": ()},
    "oft": {"oft_blocks": (10, 64, 64)},
    "boft": {"oft_blocks": (3, 20, 32, 32)},
    "full": {"diff": (320, 640), "diff_b": (320,)},
}


@pytest.mark.parametrize("dtype", ["F16", "F32", "F8_E4M3"])
@pytest.mark.parametrize("algorithm", WIDE)
def test_loading_allocates_almost_nothing(tmp_path: Path, algorithm: str, dtype: str) -> None:
    """Loading makes no dense change and no float32 copy; misaligned tensors are copied one at a time to be checked."""
    tensors: dict[str, Stored] = {"_aux.odd": ("U8", np.zeros(1, np.uint8))}
    for module in range(4):
        for role, shape in WIDE[algorithm].items():
            name = f"{flat(f'down_blocks.2.attentions.0.transformer_blocks.{module}.attn1.to_q')}.{role}"
            tensors[name] = dtype, encode(np.zeros(shape, np.float32), dtype)
    path = write_tensors(tmp_path / "x.safetensors", tensors)
    load_adapter(path)  # the tables of names are made once
    tracemalloc.start()
    adapter = load_adapter(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert adapter.covered == len(tensors) - 1
    assert peak < 100_000 + adapter.size / 2


@pytest.mark.parametrize("algorithm", ["lora", "locon", "loha", "lokr", "dora"])
@pytest.mark.parametrize("alpha", [None, 0.5, 8.0])
def test_kohyas_and_pefts_spellings_give_the_same_bits(tmp_path: Path, algorithm: str, alpha: float | None) -> None:
    path, roles = EVERYTHING[algorithm]
    roles = {role: stored for role, stored in roles.items() if role != "alpha"}
    peft_roles = {
        "lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight", "dora_scale": "lora_magnitude_vector"
    }  # fmt: skip
    kohya = {f"{flat(path)}.{role}": stored for role, stored in roles.items()}
    peft = {f"base_model.model.{path}.{peft_roles.get(role, role)}": stored for role, stored in roles.items()}
    if alpha is not None:
        kohya[f"{flat(path)}.alpha"] = ("F16", np.full((), alpha, np.float16))
        key = "alpha" if algorithm in ("loha", "lokr") else "lora_alpha"
        (tmp_path / "adapter_config.json").write_text(f'{{"{key}": {alpha}, "r": 99}}')
    (one,) = load_adapter(write_tensors(tmp_path / "x.safetensors", kohya)).deltas.values()
    (other,) = load_adapter(write_tensors(tmp_path / "adapter_model.safetensors", peft)).deltas.values()
    weight = normal(one.out_features or 0, one.in_features or 0, *([3, 3] if algorithm == "locon" else []), seed=8)
    assert one.scale == other.scale
    np.testing.assert_array_equal(one.dense(weight), other.dense(weight), strict=True)


@settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    names=st.lists(st.sampled_from(sorted(EVERYTHING)), min_size=1, max_size=4, unique=True),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3),
    lenient=st.booleans(),
)
def test_damaged_files_of_every_algorithm_are_loaded_or_refused(
    tmp_path: Path, names: list[str], edits: list[tuple[int, int]], lenient: bool
) -> None:
    content = bytearray(write_tensors(tmp_path / "x", tensors_of(*names)).read_bytes())
    for position, value in edits:
        content[position % len(content)] = value
    path = tmp_path / "y"
    path.unlink(missing_ok=True)  # the previous file may still be mapped
    path.write_bytes(content)
    try:
        adapter = load_adapter(path, lenient=lenient)
    except LorablendError:
        return
    assert adapter.covered + len(adapter.ignored) + len(adapter.refused) == adapter.tensor_count
    for delta in adapter.deltas.values():
        shape = (delta.out_features or 6, delta.in_features or 6)
        for candidate in (shape, (*shape, 3, 3), shape[:1], (4, 6)):
            if delta.fits(candidate):
                use(delta, np.ones(candidate, np.float32))


def use(delta, weight: np.ndarray) -> None:
    """Use everything that the engine uses."""
    try:
        assert delta.dense(weight).shape == weight.shape
        gated, raw = delta.gated(weight), delta.raw_factors()
    except LorablendError:
        return
    assert (raw is not None) == (delta.live == "factors")
    assert (gated is not None) == (delta.live == "gate")
    delta.factors()

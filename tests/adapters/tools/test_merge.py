"""Merged files, compared to dense sums, to PEFT's merge functions and to what diffusers loads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError, BaseModelError, BlendError, InputError, RequestError
from lorablend.adapters.tools.merge import merge
from lorablend.adapters.tools.sparsify import dare, ties
from tests.adapter_files import SD15_SHAPES, kohya_key, message_of, random_factors, write_kohya, write_tensors
from tests.adapters.tools.tool_files import CONV, TO_Q, flat_deltas, largest_error, locon, lora, truncated, weighted_sum


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "merged.safetensors"


# methods


def test_concat_is_exact_and_adds_the_ranks(tmp_path: Path, out: Path) -> None:
    a, b = lora(tmp_path / "a.safetensors", 1), lora(tmp_path / "b.safetensors", 2, rank=6, alpha=None)
    report = merge([(a, 0.8), (b, -0.4)], out, method="concat")
    assert set(report.ranks.values()) == {10}
    assert report.worst == 0
    merged = load_adapter(out)
    assert merged.base_model == "sdxl"
    # 1e-7: the weight times up is rounded to float32
    assert largest_error(flat_deltas(merged), weighted_sum((a, 0.8), (b, -0.4))) < 1e-7


@pytest.mark.parametrize("rank", [3, 8])
def test_svd_is_the_best_approximation(tmp_path: Path, out: Path, rank: int) -> None:
    a, b = lora(tmp_path / "a.safetensors", 1), lora(tmp_path / "b.safetensors", 2, rank=6)
    report = merge([(a, 0.8), (b, -0.4)], out, rank=rank)
    whole = weighted_sum((a, 0.8), (b, -0.4))
    merged = flat_deltas(load_adapter(out))
    assert largest_error(merged, {module: truncated(delta, rank) for module, delta in whole.items()}) < 1e-6  # float32
    for module, delta in whole.items():
        error = np.linalg.norm(merged[module] - delta) / np.linalg.norm(delta)
        assert report.errors[module] == pytest.approx(error, rel=1e-4)
    assert report.worst == max(report.errors.values())
    assert report.mean == pytest.approx(sum(report.errors.values()) / len(report.errors))


def test_the_default_rank_is_the_largest_of_the_inputs(tmp_path: Path, out: Path) -> None:
    a, b = lora(tmp_path / "a.safetensors", 1), lora(tmp_path / "b.safetensors", 2, rank=6)
    assert set(merge([(a, 1), (b, 1)], out).ranks.values()) == {6}


def test_ties_is_the_same_as_pefts(tmp_path: Path, out: Path) -> None:
    torch = pytest.importorskip("torch")
    merge_utils = pytest.importorskip("peft.utils.merge_utils")
    a, b, c = (lora(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2, 3))
    merge([(a, 1.0), (b, 0.5), (c, -0.7)], out, rank=200, method="ties", density=0.3)
    expected = {}
    for module, delta in flat_deltas(a).items():
        changes = [delta, 0.5 * flat_deltas(b)[module], -0.7 * flat_deltas(c)[module]]
        tensors = [torch.from_numpy(change.astype(np.float32)) for change in changes]
        expected[module] = merge_utils.ties(tensors, torch.ones(3), 0.3).numpy()
    assert largest_error(flat_deltas(load_adapter(out)), expected) < 1e-5  # an SVD of full rank in between, float32


def test_ties_then_the_best_approximation(tmp_path: Path, out: Path) -> None:
    a, b = lora(tmp_path / "a.safetensors", 1), lora(tmp_path / "b.safetensors", 2)
    merge([(a, 1), (b, 1)], out, rank=5, method="ties", density=0.5)
    expected = {
        module: truncated(ties([np.float32(delta), np.float32(flat_deltas(b)[module])], 0.5), 5)
        for module, delta in flat_deltas(a).items()
    }
    assert largest_error(flat_deltas(load_adapter(out)), expected) < 1e-5


def test_ties_keeps_and_drops_everything_at_the_ends() -> None:
    change = np.arange(-3, 3, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(ties([change], 1), change)
    np.testing.assert_array_equal(ties([change], 0.1), 0)  # a tenth of six entries is no entry


def test_dare_drops_and_rescales(tmp_path: Path, out: Path) -> None:
    change = np.random.default_rng(0).normal(size=(200, 300)).astype(np.float32)
    dropped = dare([change], 0.25, [(7, 0)])
    kept = dropped != 0
    np.testing.assert_array_equal(dropped[kept], change[kept] * 4)
    assert kept.mean() == pytest.approx(0.25, abs=0.01)  # five standard deviations of 60,000 draws
    both = dare([change, change], 0.25, [(7, 0), (7, 1)])
    np.testing.assert_allclose(both, dropped + dare([change], 0.25, [(7, 1)]), rtol=1e-6)
    assert (dare([change], 0.25, [(7, 1)]) != dropped).any()


def test_dare_of_everything_is_the_plain_sum_and_the_seed_decides(tmp_path: Path) -> None:
    a, b = lora(tmp_path / "a.safetensors", 1), lora(tmp_path / "b.safetensors", 2)
    items = [(a, 0.8), (b, 0.4)]

    def merged(name: str, **settings: Any) -> dict[Any, np.ndarray]:
        merge(items, tmp_path / name, method="dare", rank=200, **settings)
        return flat_deltas(load_adapter(tmp_path / name))

    assert largest_error(merged("1.safetensors", density=1), weighted_sum(*items)) < 1e-6
    first = merged("2.safetensors", seed=1)
    assert largest_error(merged("3.safetensors", seed=1), first) == 0
    assert largest_error(merged("4.safetensors", seed=2), first) > 0.1


@pytest.mark.parametrize("method", ["svd", "concat", "ties"])
def test_convolutions_and_modules_of_one_adapter_alone(tmp_path: Path, out: Path, method: Any) -> None:
    a, b = locon(tmp_path / "a.safetensors", 1), lora(tmp_path / "b.safetensors", 2)
    merge([(a, 0.5), (b, 2)], out, method=method, rank=8, density=1)
    merged = load_adapter(out)
    name = "lora_unet_input_blocks_4_0_in_layers_2"
    assert merged.file.tensors[f"{name}.lora_down.weight"].shape[1:] == (32, 3, 3)
    assert merged.file.tensors[f"{name}.lora_up.weight"].shape[2:] == (1, 1)
    shortcut = "lora_unet_output_blocks_3_0_skip_connection"  # 1×1, which programs expect with its kernel
    assert merged.file.tensors[f"{shortcut}.lora_down.weight"].shape[2:] == (1, 1)
    changes, expected = flat_deltas(merged), weighted_sum((a, 0.5), (b, 2))
    if method == "ties":  # ties takes the mean of changes that agree in sign if both adapters change the module
        del changes[TO_Q], expected[TO_Q]
    assert largest_error(changes, expected) < 1e-6


# our own file


@pytest.mark.parametrize(
    ("dtypes", "expected"), [(("F16", "F16"), "F16"), (("BF16",), "BF16"), (("F16", "BF16"), "F32")]
)
def test_the_dtype_of_the_inputs(tmp_path: Path, out: Path, dtypes: tuple[str, ...], expected: str) -> None:
    items = [(lora(tmp_path / f"{i}.safetensors", i, dtype=dtype), 0.7) for i, dtype in enumerate(dtypes)]
    merge(items, out)
    merged = load_adapter(out)
    assert {t.dtype for name, t in merged.file.tensors.items() if not name.endswith("alpha")} == {expected}
    # half the distance between two numbers, in both factors
    tolerance = {"F16": 2**-11, "BF16": 2**-8, "F32": 1e-6}[expected]
    whole = {
        module: truncated(delta, 4) if len(dtypes) > 1 else delta for module, delta in weighted_sum(*items).items()
    }
    assert largest_error(flat_deltas(merged), whole) < 1.5 * tolerance


def test_small_factors_survive_float16(tmp_path: Path, out: Path) -> None:
    """A small up times alpha / rank = 1/64 would be subnormal in float16."""
    a = lora(tmp_path / "a.safetensors", 1, rank=64, alpha=1.0, dtype="F16")
    for method in ("concat", "svd"):
        target = out.with_stem(method)
        merge([(a, 1)], target, method=method)
        assert largest_error(flat_deltas(load_adapter(target)), weighted_sum((a, 1))) < 2**-11


def test_metadata(tmp_path: Path, out: Path) -> None:
    a = lora(
        tmp_path / "a.safetensors",
        1,
        metadata={
            "ss_base_model_version": "sdxl_base_v0-9",
            "ss_network_dim": "4",
            "ss_learning_rate": "0.1",
            "modelspec.trigger_phrase": "ink drawing",
            "modelspec.prediction_type": "epsilon",
            "modelspec.license": "CC0",
        },
    )
    b = lora(
        tmp_path / "b.safetensors",
        2,
        metadata={"modelspec.trigger_phrase": "neon", "modelspec.prediction_type": "epsilon"},
    )
    merge([(a, 0.8), (b, 0.4)], out, rank=5, method="dare", density=0.9, seed=3)
    merged = load_adapter(out)
    data = hashlib.sha256(out.read_bytes()[merged.file.data_begin :]).hexdigest()
    made_by = json.loads(merged.metadata["lorablend.made_by"])
    assert made_by == {
        "tool": "merge",
        "method": "dare",
        "rank": 5,
        "density": 0.9,
        "seed": 3,
        "inputs": [
            {"name": "a", "sha256": hashlib.sha256(a.path.read_bytes()).hexdigest(), "weight": 0.8},
            {"name": "b", "sha256": hashlib.sha256(b.path.read_bytes()).hexdigest(), "weight": 0.4},
        ],
    }
    assert {key: value for key, value in merged.metadata.items() if key != "lorablend.made_by"} == {
        "ss_v2": "False",
        "ss_base_model_version": "sdxl_base_v0-9",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "5",
        "ss_network_alpha": "5",
        "sshs_model_hash": data,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": "merged",
        "modelspec.merged_from": "a, b",
        "modelspec.trigger_phrase": "ink drawing, neon",
        "modelspec.prediction_type": "epsilon",
        "modelspec.hash_sha256": f"0x{data}",
    }


def test_metadata_of_mixed_ranks(tmp_path: Path, out: Path) -> None:
    a, b = locon(tmp_path / "a.safetensors", 1), lora(tmp_path / "b.safetensors", 2, rank=6)
    merge([(a, 1), (b, 1)], out)
    metadata = load_adapter(out).metadata
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("6", "6")
    assert json.loads(metadata["ss_network_args"]) == {"conv_dim": "4", "conv_alpha": "4"}
    merge([(a, 1), (b, 1)], out.with_stem("mixed"), method="concat")
    assert load_adapter(out.with_stem("mixed")).metadata["ss_network_dim"] == "Dynamic"


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, out: Path) -> None:
    a, b = lora(tmp_path / "a.safetensors", 1), lora(tmp_path / "b.safetensors", 2)
    merge([(a, 0.8), (b, 0.4)], out)
    first = out.read_bytes()
    out.unlink()
    merge([(a, 0.8), (b, 0.4)], out)
    assert out.read_bytes() == first


def test_the_report_as_json(tmp_path: Path, out: Path) -> None:
    report = merge([(lora(tmp_path / "a.safetensors", 1), 1)], out, rank=2).to_json()
    assert json.loads(json.dumps(report)) == report
    assert report["worst_error"] >= report["mean_error"] > 0
    assert {row["rank"] for row in report["modules"]} == {2}


@pytest.mark.parametrize("naming", ["kohya", "diffusers"])
def test_diffusers_loads_it(sdxl_source: Path, tmp_path: Path, out: Path, naming: Any) -> None:
    pytest.importorskip("peft")
    from diffusers import StableDiffusionXLPipeline

    from tests.adapter_files import SDXL_SHAPES, peft_deltas

    # For modules that the small model has, in its shapes.
    pipeline = StableDiffusionXLPipeline.from_pretrained(sdxl_source)
    models = {name: getattr(pipeline, name) for name in ("unet", "text_encoder", "text_encoder_2")}
    own = {
        (component, path if component == "unet" or path.startswith("text_model.") else f"text_model.{path}"): module
        for component, model in models.items()
        for path, module in model.named_modules()
    }
    # diffusers infers the naming of a text encoder from its out_proj.
    out_proj = ("text_encoder_2", "text_model.encoder.layers.0.self_attn.out_proj")
    shapes = {key: tuple(own[key].weight.shape) for key in (*SDXL_SHAPES, CONV, out_proj)}
    tensors: dict[str, Any] = {}
    random = np.random.default_rng(5)
    for module, shape in shapes.items():
        key, kernel = kohya_key(module), (1,) * (len(shape) - 2)
        tensors[f"{key}.lora_down.weight"] = "F32", random.normal(0, 0.1, (4, *shape[1:])).astype(np.float32)
        tensors[f"{key}.lora_up.weight"] = "F32", random.normal(0, 0.1, (shape[0], 4, *kernel)).astype(np.float32)
        tensors[f"{key}.alpha"] = "F32", np.float32(1).reshape(())
    a = load_adapter(write_tensors(tmp_path / "a.safetensors", tensors))

    merge([(a, 0.8), (a, -0.3)], out, rank=3, naming=naming)

    pipeline.load_lora_weights(out.parent, weight_name=out.name, adapter_name="merged")
    loaded = {k: v for name, model in models.items() for k, v in peft_deltas(name, model, "merged").items()}
    expected = {module: truncated(delta, 3) for module, delta in weighted_sum((a, 0.5)).items()}
    assert largest_error({k: v.reshape(len(v), -1) for k, v in loaded.items()}, expected) < 1e-5


# without factors


def full(path: Path) -> Any:
    """A file with a full difference of one weight."""
    difference = np.random.default_rng(3).normal(0, 0.1, (64, 64)).astype(np.float32)
    return load_adapter(write_tensors(path, {f"{kohya_key(TO_Q)}.diff": ("F32", difference)})), difference


def test_a_change_without_factors_needs_the_model(tmp_path: Path, out: Path) -> None:
    whole, difference = full(tmp_path / "whole.safetensors")
    a = lora(tmp_path / "a.safetensors", 1)
    message = message_of(AdapterError, lambda: merge([(a, 1), (whole, 0.5)], out))
    assert message == (
        f"whole: {' '.join(TO_Q)} is changed by full, which has no factors; give the model whose weights it changes"
    )
    message = message_of(AdapterError, lambda: merge([(whole, 0.5)], out, method="concat"))
    assert message == (
        f"whole: {' '.join(TO_Q)} is changed by full, which has no factors; choose the method svd and give the model"
    )
    assert not out.exists()

    merge([(a, 1), (whole, 0.5)], out, rank=7, weights=lambda *_: np.ones((64, 64), np.float32))
    expected = flat_deltas(a)
    expected = {module: truncated(delta, 7) for module, delta in expected.items()}
    expected[TO_Q] = truncated(flat_deltas(a)[TO_Q] + 0.5 * difference, 7)
    assert largest_error(flat_deltas(load_adapter(out)), expected) < 1e-6


def test_a_model_without_the_module(tmp_path: Path, out: Path) -> None:
    whole, _ = full(tmp_path / "whole.safetensors")
    message = message_of(AdapterError, lambda: merge([(whole, 1)], out, weights=lambda *_: None))
    assert message == f"whole changes {' '.join(TO_Q)}, which the model does not have"


# refusals


def test_refusals_of_settings(tmp_path: Path, out: Path) -> None:
    items = [(lora(tmp_path / "a.safetensors", 1), 1.0)] * 2
    bad: list[tuple[dict[str, Any], str]] = [
        ({"method": "slerp"}, "method is slerp; give svd, concat, ties or dare"),
        ({"naming": "a1111"}, "naming is a1111; give kohya or diffusers"),
        ({"dtype": "fp8"}, "dtype is fp8; give f32, f16 or bf16"),
        ({"rank": 0}, "rank is 0; give 1 to 4096"),
        ({"density": 0}, "density is 0; give a number above 0 and at most 1"),
        ({"density": float("nan")}, "density is nan; give a number above 0 and at most 1"),
        ({"seed": -1}, "seed is -1; give 0 or more"),
        (
            {"method": "concat", "rank": 7},
            "rank is 7, but concat adds the ranks up to 8; give 8 or the method svd",
        ),
    ]
    for settings, expected in bad:
        assert message_of(RequestError, lambda settings=settings: merge(items, out, **settings)) == expected
    assert message_of(BlendError, lambda: merge([], out)) == "there is nothing to merge; give at least one adapter"
    assert not out.exists()


def test_refusals_of_adapters(tmp_path: Path, out: Path) -> None:
    a = lora(tmp_path / "a.safetensors", 1)
    other = load_adapter(
        write_kohya(tmp_path / "old.safetensors", random_factors(SD15_SHAPES), base="sd15", naming="diffusers")
    )
    assert message_of(BaseModelError, lambda: merge([(a, 1), (other, 1)], out)) == (
        "a is for sdxl, old is for sd15; give adapters for one base model"
    )
    assert message_of(AdapterError, lambda: merge([(a, 0)], out)) == (
        "merged.safetensors: nothing to write, because every change is zero"
    )
    assert message_of(AdapterError, lambda: merge([(a, 1e39)], out)).endswith("does not fit float32")
    assert message_of(AdapterError, lambda: merge([(a, 1e12)], out, dtype="f16")).endswith(
        "does not fit f16; write bf16 or f32"
    )
    key = kohya_key(TO_Q)
    bias = write_tensors(tmp_path / "bias.safetensors", {f"{key}.diff_b": ("F32", np.ones(64, np.float32))})
    assert message_of(AdapterError, lambda: merge([(load_adapter(bias), 1)], out)) == (
        f"bias changes the bias of {' '.join(TO_Q)}, which a LoRA file cannot contain; blend or bake it as it is"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "bias.safetensors", "old.safetensors"]


def test_refusals_of_places(tmp_path: Path, out: Path) -> None:
    items = [(lora(tmp_path / "a.safetensors", 1), 1.0)]
    out.write_bytes(b"mine")
    assert message_of(InputError, lambda: merge(items, out)) == (
        f"{out} is already there; choose another name or delete it"
    )
    assert out.read_bytes() == b"mine"
    nowhere = tmp_path / "nowhere" / "x.safetensors"
    assert message_of(InputError, lambda: merge(items, nowhere)) == (
        f"{nowhere}: the folder {nowhere.parent} does not exist; create it first"
    )

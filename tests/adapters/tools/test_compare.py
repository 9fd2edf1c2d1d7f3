"""Norms and cosines, compared to dense float64 algebra."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lorablend.adapters import Adapter, load_adapter
from lorablend.adapters.errors import AdapterError, BaseModelError, BlendError
from lorablend.adapters.tools.compare import Comparison, compare
from tests.adapter_files import (
    SD15_SHAPES,
    SDXL_SHAPES,
    Factors,
    Module,
    kohya_key,
    message_of,
    random_factors,
    write_kohya,
    write_tensors,
)
from tests.adapters.tools.tool_files import TO_Q, flat_deltas, locon, lora


def vector(adapter: Adapter, modules: list[Module]) -> np.ndarray:
    """The changes of these modules as one vector."""
    deltas = flat_deltas(adapter)
    sizes = {module: int(np.prod(shape)) for module, shape in SDXL_SHAPES.items()}
    return np.concatenate([deltas[m].reshape(-1) if m in deltas else np.zeros(sizes[m]) for m in modules])


def overlapping(tmp_path: Path) -> list[Adapter]:
    """Three adapters: the second partly opposes the first, the third lacks half of the modules."""
    first, other = random_factors(seed=1, alpha=2.0), random_factors(seed=2, alpha=2.0)
    second = {
        module: Factors(
            np.concatenate([-one.down, other[module].down]),
            np.concatenate([one.up, other[module].up], axis=1),
            2.0,
            one.conv,
        )
        for module, one in first.items()
    }
    third = dict(list(random_factors(seed=3, rank=6, alpha=3.0).items())[::2])
    return [
        load_adapter(write_kohya(tmp_path / f"{name}.safetensors", factors, dtype="F32"))
        for name, factors in (("a", first), ("b", second), ("c", third))
    ]


def check(comparison: Comparison, adapters: list[Adapter]) -> None:
    by_block: dict[tuple[str, str], list[Module]] = {}
    for module in SDXL_SHAPES:
        component, path = module
        name = ".".join(path.split(".")[: 3 if path.startswith("mid") else 4]) if component == "unet" else "all"
        by_block.setdefault((component, name), []).append(module)
    assert {(block.component, block.name): block.modules for block in comparison.blocks} == {
        block: len(modules) for block, modules in by_block.items()
    }
    for block in (*comparison.blocks, comparison.total):
        modules = by_block[block.component, block.name] if block.component else list(SDXL_SHAPES)
        vectors = [vector(adapter, modules) for adapter in adapters]
        for i, one in enumerate(vectors):
            assert block.norms[i] == pytest.approx(np.linalg.norm(one), rel=1e-6)
            for j, other in enumerate(vectors):
                if one.any() and other.any():
                    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
                    assert block.cosines[i, j] == pytest.approx(cosine, abs=1e-6)
                else:
                    assert np.isnan(block.cosines[i, j])


def test_sizes_and_cosines(tmp_path: Path) -> None:
    adapters = overlapping(tmp_path)
    comparison = compare(adapters)
    check(comparison, adapters)
    assert comparison.names == ("a", "b", "c")
    assert not comparison.relative
    assert comparison.left_out == ()
    assert -0.9 < comparison.total.cosines[0, 1] < -0.5
    weights = np.array(comparison.weights, float)
    np.testing.assert_allclose(weights * comparison.total.norms, comparison.total.norms.min())
    assert weights.max() == 1


def test_blocks_are_in_the_order_of_the_network(tmp_path: Path) -> None:
    blocks = [(block.component, block.name) for block in compare([lora(tmp_path / "a.safetensors", 1)]).blocks]
    assert blocks == [
        ("text_encoder", "all"),
        ("text_encoder_2", "all"),
        ("unet", "down_blocks.1.attentions.0"),
        ("unet", "down_blocks.2.attentions.1"),
        ("unet", "mid_block.attentions.0"),
        ("unet", "up_blocks.0.attentions.2"),
        ("unet", "up_blocks.1.resnets.0"),
        ("unet", "up_blocks.2.resnets.0"),
    ]


def test_relative_to_the_models_weights(tmp_path: Path) -> None:
    adapters = overlapping(tmp_path)
    random = np.random.default_rng(0)
    weights = {module: random.normal(size=shape).astype(np.float32) for module, shape in SDXL_SHAPES.items()}
    comparison = compare(adapters, lambda *module: weights[module])
    assert comparison.relative
    block = next(block for block in comparison.blocks if block.component == "text_encoder_2")
    modules = [module for module in SDXL_SHAPES if module[0] == "text_encoder_2"]
    base = np.linalg.norm(np.concatenate([weights[module].reshape(-1) for module in modules]))
    for i, adapter in enumerate(adapters):
        assert block.norms[i] == pytest.approx(np.linalg.norm(vector(adapter, modules)) / base, rel=1e-6)
    whole = np.linalg.norm(np.concatenate([weight.reshape(-1) for weight in weights.values()]))
    expected = np.linalg.norm(vector(adapters[0], list(SDXL_SHAPES))) / whole
    assert comparison.total.norms[0] == pytest.approx(expected, rel=1e-6)


def test_changes_without_factors_are_compared_dense(tmp_path: Path) -> None:
    a = lora(tmp_path / "a.safetensors", 1)
    difference = np.random.default_rng(3).normal(0, 0.1, (64, 64)).astype(np.float32)
    whole = load_adapter(write_tensors(tmp_path / "w.safetensors", {f"{kohya_key(TO_Q)}.diff": ("F32", difference)}))
    assert message_of(AdapterError, lambda: compare([a, whole])) == (
        f"w: {' '.join(TO_Q)} is changed by full, which has no factors; give the model whose weights it changes"
    )
    shapes = {**SDXL_SHAPES}
    comparison = compare([a, whole], lambda *module: np.ones(shapes[module], np.float32))
    block = next(block for block in comparison.blocks if block.name == "down_blocks.1.attentions.0")
    modules = [module for module in SDXL_SHAPES if module[1].startswith("down_blocks.1.attentions.0")]
    mine = vector(a, modules)
    theirs = np.concatenate([difference.reshape(-1) if module == TO_Q else np.zeros(64 * 64) for module in modules])
    cosine = mine @ theirs / np.linalg.norm(mine) / np.linalg.norm(theirs)
    assert block.cosines[0, 1] == pytest.approx(cosine, abs=1e-6)
    assert block.norms[1] == pytest.approx(np.linalg.norm(difference) / np.sqrt(len(modules) * 64 * 64), rel=1e-6)


def test_convolutions(tmp_path: Path) -> None:
    a, b = locon(tmp_path / "a.safetensors", 1), locon(tmp_path / "b.safetensors", 2)
    one, other = (np.concatenate([d.reshape(-1) for d in flat_deltas(adapter).values()]) for adapter in (a, b))
    total = compare([a, b]).total
    assert total.norms[1] == pytest.approx(np.linalg.norm(other), rel=1e-6)
    expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert total.cosines[0, 1] == pytest.approx(expected, abs=1e-6)


def test_changes_that_cannot_be_compared_are_listed(tmp_path: Path) -> None:
    factors = random_factors({TO_Q: (64, 64)})[TO_Q]
    key = kohya_key(TO_Q)
    down, up = factors.stored("F32")
    tensors = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
    tensors[f"{key}.diff_b"] = "F32", np.ones(64, np.float32)
    tensors["bundle_emb.ink.clip_l"] = "F32", np.ones((1, 768), np.float32)
    a = load_adapter(write_tensors(tmp_path / "a.safetensors", tensors))
    assert compare([a]).left_out == ("a: changes of 1 bias", "a: the words ink")
    assert compare([a], lambda *_: None).left_out[-1] == f"{' '.join(TO_Q)}: the model has no such layer"


def test_an_adapter_that_changes_nothing_has_no_weight(tmp_path: Path) -> None:
    a, zero = lora(tmp_path / "a.safetensors", 1), lora(tmp_path / "z.safetensors", 2, alpha=0.0)
    comparison = compare([a, zero])
    assert comparison.weights == (1.0, None)
    assert comparison.to_json()["total"]["cosines"][0][1] is None


def test_plain_data(tmp_path: Path) -> None:
    report = compare(overlapping(tmp_path)).to_json()
    assert json.loads(json.dumps(report)) == report
    assert report["adapters"] == ["a", "b", "c"]
    assert len(report["suggested_weights"]) == 3
    assert set(report["blocks"][0]) == {"component", "block", "modules", "norms", "cosines"}


def test_refusals(tmp_path: Path) -> None:
    a = lora(tmp_path / "a.safetensors", 1)
    assert message_of(BlendError, lambda: compare([])) == "0 adapters to compare; give 1 to 16"
    assert message_of(BlendError, lambda: compare([a] * 17)) == "17 adapters to compare; give 1 to 16"
    old = load_adapter(write_kohya(tmp_path / "old.safetensors", random_factors(SD15_SHAPES), base="sd15"))
    assert message_of(BaseModelError, lambda: compare([a, old])) == (
        "a is for sdxl, old is for sd15; give adapters for one base model"
    )
    wide = load_adapter(write_kohya(tmp_path / "wide.safetensors", random_factors({TO_Q: (128, 64)}), naming="sgm"))
    assert message_of(AdapterError, lambda: compare([a, wide])) == (
        f"{' '.join(TO_Q)} is 64×64 in a, but 128×64 in wide; they are for different models"
    )

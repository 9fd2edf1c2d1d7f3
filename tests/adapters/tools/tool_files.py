"""Adapter files and references for the tests of the tools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lorablend.adapters import Adapter, load_adapter
from tests.adapter_files import SDXL_SHAPES, Module, kohya_key, random_factors, write_kohya, write_tensors

CONV = ("unet", "down_blocks.1.resnets.0.conv1")  # 3×3 of the small SDXL model: [64, 32, 3, 3]
TO_Q = ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q")
FIRST = dict(list(SDXL_SHAPES.items())[:3])


def lora(
    path: Path, seed: int, rank: int = 4, dtype: str = "F32", alpha: float | None = 2.0, **more: object
) -> Adapter:
    """A kohya file for the modules of SDXL_SHAPES."""
    return load_adapter(
        write_kohya(path, random_factors(rank=rank, alpha=alpha, seed=seed), naming="sgm", dtype=dtype, **more)
    )


def locon(path: Path, seed: int, rank: int = 4) -> Adapter:
    """A kohya file with one 3×3 convolution and one linear layer."""
    random = np.random.default_rng(seed)
    tensors = {}
    for module, shape in ((CONV, (64, 32, 3, 3)), (TO_Q, (64, 64))):
        key, kernel = kohya_key(module), (1,) * (len(shape) - 2)
        down, up = random.normal(0, 0.1, (rank, *shape[1:])), random.normal(0, 0.1, (shape[0], rank, *kernel))
        tensors[f"{key}.lora_down.weight"] = "F32", down.astype(np.float32)
        tensors[f"{key}.lora_up.weight"] = "F32", up.astype(np.float32)
        tensors[f"{key}.alpha"] = "F32", np.float32(1).reshape(())
    return load_adapter(write_tensors(path, tensors))


def flat_deltas(adapter: Adapter) -> dict[Module, np.ndarray]:
    """Every ΔW of a LoRA as a float64 matrix [out, everything else]."""
    deltas = {}
    for module, delta in adapter.deltas.items():
        factors = delta.factors()
        assert factors is not None
        down, up = factors
        deltas[module] = np.float64(up) @ np.float64(down).reshape(len(down), -1)
    return deltas


def weighted_sum(*items: tuple[Adapter, float]) -> dict[Module, np.ndarray]:
    total: dict[Module, np.ndarray] = {}
    for adapter, weight in items:
        for module, delta in flat_deltas(adapter).items():
            total[module] = total.get(module, 0) + weight * delta
    return total


def truncated(matrix: np.ndarray, rank: int) -> np.ndarray:
    """The best approximation of a rank, by LAPACK's SVD."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def largest_error(actual: Mapping[Module, np.ndarray], expected: Mapping[Module, np.ndarray]) -> float:
    """The largest relative error of a module in the Frobenius norm; both must have the same modules."""
    assert set(actual) == set(expected), set(actual) ^ set(expected)
    return max(
        float(np.linalg.norm(actual[module] - expected[module]) / np.linalg.norm(expected[module]))
        for module in expected
    )

"""Adapter files of one module, and random tensors to put into them."""

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings

from lorablend.adapters import load_adapter
from lorablend.adapters.algorithms.delta import Delta
from tests.adapter_files import Stored, write_tensors

CONV = "down_blocks.1.resnets.0.conv1"
Q = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"

PROPERTY = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal random numbers, float32."""
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def only(tmp_path: Path, tensors: dict[str, Stored], *, name: str = "x", **metadata: str) -> Delta:
    """The delta of the only module in a file of these tensors."""
    (delta,) = load_adapter(write_tensors(tmp_path / f"{name}.safetensors", tensors, metadata)).deltas.values()
    return delta

"""DoRA: the axis that the magnitude's shape determines, the gate, and refusals."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorablend.adapters.errors import AdapterError
from tests.adapter_files import Stored, message_of
from tests.adapters.algorithms.deltas import CONV, PROPERTY, Q, normal, only
from tests.adapters.references import relative

PAIR: dict[str, Stored] = {
    f"unet.{Q}.lora_A.weight": ("F32", normal(2, 6)),
    f"unet.{Q}.lora_B.weight": ("F32", normal(4, 2, seed=1)),
    f"unet.{Q}.alpha": ("F32", np.ones(1, np.float32)),
}
WEIGHT = normal(4, 6, seed=2)


def magnitude(suffix: str, *shape: int) -> dict[str, Stored]:
    return {f"unet.{Q}{suffix}": ("F32", normal(*shape, seed=3))}


@pytest.mark.parametrize(
    ("suffix", "shape", "axis"),
    [
        (".dora_scale", (1, 6), 0),
        (".dora_scale", (1, 6, 1, 1), 0),
        (".dora_scale", (4, 1), 1),
        (".dora_scale", (4, 1, 1, 1), 1),
        (".dora_scale", (4,), 1),
        (".lora_magnitude_vector", (4,), 1),
        (".lora_magnitude_vector.weight", (1, 4, 1, 1), 1),
        (".lora_magnitude_vector.style.weight", (4,), 1),
        (".magnitude", (4,), 1),
    ],
)
def test_the_axis(tmp_path: Path, suffix: str, shape: tuple[int, ...], axis: int) -> None:
    tensors = PAIR | magnitude(suffix, *shape)
    delta = only(tmp_path, tensors)
    changed = WEIGHT + 0.5 * tensors[f"unet.{Q}.lora_B.weight"][1] @ tensors[f"unet.{Q}.lora_A.weight"][1]
    norm = np.linalg.norm(changed.astype(np.float64), axis=axis, keepdims=True)
    m = tensors[f"unet.{Q}{suffix}"][1].reshape(norm.shape)
    assert relative(delta.dense(WEIGHT), m * changed / norm - WEIGHT) <= 1e-5  # float32 against float64
    assert (delta.algorithm, delta.rank, delta.alpha, delta.scale, delta.dtype) == ("dora", 2, 1, 0.5, "f32")
    assert (delta.live, delta.live_rank) == (("gate", 2) if axis else ("", 0))
    assert delta.factors() is None
    assert delta.raw_factors() is None
    assert (delta.gated(WEIGHT) is None) == (not axis)


def test_the_norm_of_the_changed_weight_as_magnitude_changes_nothing_more(tmp_path: Path) -> None:
    plain = only(tmp_path, PAIR)
    norm = np.linalg.norm(WEIGHT + plain.dense(WEIGHT), axis=1)
    delta = only(tmp_path, PAIR | {f"unet.{Q}.magnitude": ("F32", norm)}, name="y")
    assert relative(delta.dense(WEIGHT), plain.dense(WEIGHT)) <= 1e-5  # epsilon and rounding


def test_an_output_channel_that_is_all_zero_stays_finite(tmp_path: Path) -> None:
    tensors = PAIR | magnitude(".magnitude", 4)
    tensors[f"unet.{Q}.lora_B.weight"] = ("F32", np.zeros((4, 2), np.float32))
    weight = np.zeros((4, 6), np.float32)
    assert np.isfinite(only(tmp_path, tensors).dense(weight)).all()


@PROPERTY
@given(
    out=st.integers(2, 24),
    width=st.integers(1, 24),
    rank=st.integers(1, 8),
    kernel=st.sampled_from([(), (1, 1), (3, 3)]),
)
def test_the_gate_and_dense_are_the_same_change(
    tmp_path: Path, out: int, width: int, rank: int, kernel: tuple[int, ...]
) -> None:
    path = CONV if kernel == (3, 3) else Q
    tensors: dict[str, Stored] = {
        f"unet.{path}.lora_down.weight": ("F32", normal(rank, width, *kernel)),
        f"unet.{path}.lora_up.weight": ("F32", normal(out, rank, seed=1)),
        f"unet.{path}.dora_scale": ("F32", normal(out, *[1] * (1 + len(kernel)), seed=2)),
    }
    delta, weight = only(tmp_path, tensors), normal(out, width, *kernel, seed=3)
    gated = delta.gated(weight)
    assert gated is not None
    assert gated.down is not None
    assert gated.up is not None
    low_rank = gated.up @ gated.down.reshape(rank, -1)
    change = gated.gate.reshape(-1, *[1] * (weight.ndim - 1)) * weight + low_rank.reshape(weight.shape)
    assert relative(change, delta.dense(weight)) <= 2e-5  # two float32 roundings of numbers that partly cancel


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (magnitude(".magnitude", 5), f"unet {Q}: tensor unet.{Q}.magnitude has shape [5] for 4 outputs"),
        (magnitude(".magnitude", 2, 2), f"unet {Q}: tensor unet.{Q}.magnitude has shape [2, 2] for 4 outputs"),
        (magnitude(".dora_scale", 1, 5), f"unet {Q}: tensor unet.{Q}.dora_scale has shape [1, 5] for 6 inputs"),
        (
            magnitude(".dora_scale", 4) | magnitude(".magnitude", 4),
            f"unet {Q}: both dora_scale and a magnitude; expected only one of them",
        ),
        (
            {f"unet.{Q}.magnitude": ("I32", np.ones(4, "<i4"))},
            f"tensor unet.{Q}.magnitude is I32: save it as F16, BF16 or F32",
        ),
        (
            magnitude(".magnitude", 4)
            | {f"unet.{Q}.lora_A.weight": ("F32", normal(0, 6)), f"unet.{Q}.lora_B.weight": ("F32", normal(4, 0))},
            f"unet {Q}: tensor unet.{Q}.magnitude is a magnitude, but the rank is 0",
        ),
    ],
)
def test_refusals(tmp_path: Path, tensors: dict[str, Stored], message: str) -> None:
    assert message_of(AdapterError, lambda: only(tmp_path, PAIR | tensors)) == f"x.safetensors: {message}"

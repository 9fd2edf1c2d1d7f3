"""LoHa: the formula element by element, its live form for all shapes, and refusals."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorablend.adapters.errors import AdapterError
from tests.adapter_files import Stored, encode, message_of
from tests.adapters.algorithms.deltas import CONV, PROPERTY, Q, normal, only
from tests.adapters.references import relative

ROLES = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


def loha(
    out: int, width: int, ranks: tuple[int, int], name: str = f"unet.{Q}", dtype: str = "F32"
) -> dict[str, Stored]:
    shapes = (out, ranks[0]), (ranks[0], width), (out, ranks[1]), (ranks[1], width)
    return {
        f"{name}.{role}": (dtype, encode(normal(*shape, seed=seed), dtype))
        for seed, (role, shape) in enumerate(zip(ROLES, shapes, strict=True))
    }


def test_the_formula(tmp_path: Path) -> None:
    tensors = loha(3, 4, (2, 5)) | {f"unet.{Q}.alpha": ("F32", np.float32(3).reshape(()))}
    a, b, c, d = (tensors[f"unet.{Q}.{role}"][1].astype(np.float64) for role in ROLES)
    expected = [[a[i] @ b[:, j] * (c[i] @ d[:, j]) * 3 / 2 for j in range(4)] for i in range(3)]
    delta = only(tmp_path, tensors)
    assert (delta.algorithm, delta.rank, delta.scale, delta.live_rank) == ("loha", 2, 1.5, 3)
    np.testing.assert_allclose(delta.dense(np.zeros((3, 4), np.float32)), expected, rtol=1e-5, atol=1e-5)


@PROPERTY
@given(
    out=st.integers(1, 24),
    width=st.integers(1, 24),
    first=st.integers(1, 5),
    second=st.integers(1, 5),
    kernel=st.sampled_from([(), (3, 3)]),
    dtype=st.sampled_from(["F8_E4M3", "F8_E5M2", "F16", "BF16", "F32"]),
    stored_flat=st.booleans(),
)
def test_factors_and_dense_are_the_same_change(
    tmp_path: Path,
    out: int,
    width: int,
    first: int,
    second: int,
    kernel: tuple[int, ...],
    dtype: str,
    stored_flat: bool,
) -> None:
    name = f"lycoris_{(CONV if kernel else Q).replace('.', '_')}"
    tensors = loha(out, width * int(np.prod(kernel)), (first, second), name, dtype)
    if kernel and not stored_flat:  # OneTrainer keeps the convolution's dimensions
        for role in ("hada_w1_b", "hada_w2_b"):
            kind, values = tensors[f"{name}.{role}"]
            tensors[f"{name}.{role}"] = kind, values.reshape(-1, width, *kernel)
    delta = only(tmp_path, tensors)
    weight = np.zeros((out, width, *kernel), np.float32)
    assert delta.fits(weight.shape)
    change = delta.dense(weight)
    factors = delta.factors()
    assert factors is not None
    down, up = factors
    assert delta.live_rank == min(first * second, out, weight[0].size)  # or the change itself and an identity matrix
    assert down.shape == (delta.live_rank, width, *kernel)
    # 1e-5: float32 sums of the same products in another order
    assert relative((up @ down.reshape(len(down), -1)).reshape(weight.shape), change) <= 1e-5
    assert delta.live == "factors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hada_w1_a": (4, 3)}, f"unet {Q}: hada_w1_a has rank 3, hada_w1_b has rank 2"),
        ({"hada_w2_b": (2, 7)}, f"unet {Q}: hada_w1 is for a weight of 4×6, hada_w2 for one of 4×7"),
        ({"hada_w2_b": (2,)}, f"tensor unet.{Q}.hada_w2_b has shape [2]; expected 2 or 4 dimensions"),
        ({"hada_w2_a": (4, 2, 3, 3)}, f"tensor unet.{Q}.hada_w2_a has shape [4, 2, 3, 3]; expected a matrix"),
        (
            {"hada_t1": (2, 2, 3, 3)},
            f"unet {Q}: no hada_t2 for 5 tensors: unet.{Q}.hada_w1_a, unet.{Q}.hada_w1_b, unet.{Q}.hada_w2_a, …",
        ),
        ({"hada_t1": (2, 2, 3, 3), "hada_t2": (2, 3, 3, 3)}, f"unet {Q}: hada_t1 is 2×2, but the ranks are 4×2"),
        (
            {"lora_A.weight": (2, 6)},
            f"unet {Q}: unexpected 1 tensor: unet.{Q}.lora_A.weight with unet.{Q}.hada_w1_a",
        ),
    ],
)
def test_refusals(tmp_path: Path, change: dict[str, tuple[int, ...]], message: str) -> None:
    tensors = loha(4, 6, (2, 2)) | {f"unet.{Q}.{role}": ("F32", normal(*shape)) for role, shape in change.items()}
    assert message_of(AdapterError, lambda: only(tmp_path, tensors)) == f"x.safetensors: {message}"


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    tensors = loha(4, 6, (2, 2))
    del tensors[f"unet.{Q}.hada_w2_a"]
    assert message_of(AdapterError, lambda: only(tmp_path, tensors)).startswith(
        f"x.safetensors: unet {Q}: no hada_w2_a for 3 tensors: "
    )

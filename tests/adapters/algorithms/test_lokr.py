"""LoKr: the formula element by element, its live form for all factorings, its scale, and refusals."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError
from tests.adapter_files import Stored, encode, message_of, write_tensors
from tests.adapters.algorithms.deltas import CONV, PROPERTY, Q, normal, only
from tests.adapters.references import relative

Shapes = dict[str, tuple[int, ...]]


def lokr(shapes: Shapes, name: str = f"unet.{Q}", dtype: str = "F32", alpha: float | None = None) -> dict[str, Stored]:
    tensors: dict[str, Stored] = {
        f"{name}.lokr_{role}": (dtype, encode(normal(*shape, seed=len(role) + sum(shape)), dtype))
        for role, shape in shapes.items()
    }
    if alpha is not None:
        tensors[f"{name}.alpha"] = ("F32", np.full((), alpha, np.float32))
    return tensors


def test_the_formula(tmp_path: Path) -> None:
    tensors = lokr({"w1": (2, 3), "w2": (4, 5)})
    (_, w1), (_, w2) = tensors.values()
    change = only(tmp_path, tensors).dense(np.zeros((8, 15), np.float32))
    for i, k, j, n in np.ndindex(2, 4, 3, 5):
        assert change[i * 4 + k, j * 5 + n] == w1[i, j] * w2[k, n]


@pytest.mark.parametrize(
    ("shapes", "alpha", "rank", "scale"),
    [
        ({"w1": (2, 3), "w2_a": (4, 5), "w2_b": (5, 6)}, 10, 5, 2),
        ({"w1_a": (2, 3), "w1_b": (3, 4), "w2_a": (4, 5), "w2_b": (5, 6)}, 10, 5, 2),
        ({"w1_a": (2, 4), "w1_b": (4, 4), "w2": (4, 5)}, 10, 4, 2.5),
        ({"w1": (2, 3), "w2": (4, 5)}, 10, None, 1),
        ({"w1": (2, 3), "w2_a": (4, 5), "w2_b": (5, 6)}, None, 5, 1),
        # what ai-toolkit writes for no alpha, and the same in float16
        ({"w1": (2, 3), "w2": (4, 5)}, 9999999999, None, 1),
        ({"w1": (2, 3), "w2": (4, 5)}, math.inf, None, 1),
    ],
)
def test_the_scale(tmp_path: Path, shapes: Shapes, alpha: float | None, rank: int | None, scale: float) -> None:
    delta = only(tmp_path, lokr(shapes, alpha=alpha))
    assert (delta.rank, delta.scale, delta.algorithm) == (rank, scale, "lokr")
    if alpha and math.isfinite(alpha):
        assert delta.alpha == np.float32(alpha)


def test_an_infinite_alpha_that_is_used_is_refused(tmp_path: Path) -> None:
    tensors = lokr({"w1": (2, 3), "w2_a": (4, 5), "w2_b": (5, 6)}, alpha=math.inf)
    assert message_of(AdapterError, lambda: only(tmp_path, tensors)) == (
        f"x.safetensors: tensor unet.{Q}.alpha contains NaN or infinity; the file is unusable"
    )


@pytest.mark.parametrize(
    ("alpha", "dim", "warned"), [(1, "32", True), (32, "32", False), (9999999999, "32", False), (1, None, False)]
)
def test_an_ambiguous_alpha_gives_a_warning(tmp_path: Path, alpha: float, dim: str | None, warned: bool) -> None:
    tensors = lokr({"w1": (2, 3), "w2": (4, 5)}, alpha=alpha)
    metadata = {"ss_network_dim": dim} if dim else {}
    warnings = load_adapter(write_tensors(tmp_path / "x", tensors, metadata)).warnings
    expected = (
        "LoKr of whole matrices with alpha 1 and ss_network_dim 32: applied with scale 1, as LyCORIS does; "
        "if it is too strong, its author meant alpha / dim"
    )
    assert warnings == ((expected,) if warned else ())


@PROPERTY
@given(
    sides=st.tuples(*[st.integers(1, 6)] * 4),
    first_rank=st.none() | st.integers(1, 4),
    second_rank=st.none() | st.integers(1, 4),
    kernel=st.sampled_from([(), (3, 3)]),
    form=st.sampled_from(["flat", "kernel", "core"]),
    dtype=st.sampled_from(["F8_E4M3", "F8_E5M2", "F16", "BF16", "F32"]),
)
def test_every_factoring_is_the_product_of_its_whole_matrices(
    tmp_path: Path,
    sides: tuple[int, int, int, int],
    first_rank: int | None,
    second_rank: int | None,
    kernel: tuple[int, ...],
    form: str,
    dtype: str,
) -> None:
    rows, columns, more_rows, more_columns = sides
    shapes: Shapes = {"w1": (rows, columns)}
    if first_rank:
        shapes = {"w1_a": (rows, first_rank), "w1_b": (first_rank, columns)}
    across = (more_columns, *kernel) if form == "kernel" else (more_columns * math.prod(kernel),)
    if not second_rank:
        shapes["w2"] = (more_rows, *across)
    elif form == "core" and kernel:
        shapes |= {"t2": (second_rank, second_rank, *kernel), "w2_a": (second_rank, more_rows)}
        shapes["w2_b"] = (second_rank, more_columns)
    else:
        shapes |= {"w2_a": (more_rows, second_rank), "w2_b": (second_rank, *across)}
    name = f"lycoris_{(CONV if kernel else Q).replace('.', '_')}"
    delta = only(tmp_path, lokr(shapes, name, dtype))
    weight = np.zeros((rows * more_rows, columns * more_columns, *kernel), np.float32)
    assert delta.fits(weight.shape)
    change = delta.dense(weight)

    file = load_adapter(tmp_path / "x.safetensors").file.tensors
    part = {role: file[f"{name}.lokr_{role}"].float32().astype(np.float64) for role in shapes}
    first = part["w1"] if "w1" in part else part["w1_a"] @ part["w1_b"]
    if "t2" in part:
        second = np.einsum("ijyx,ip,jq->pqyx", part["t2"], part["w2_a"], part["w2_b"])
    elif "w2" in part:
        second = part["w2"].reshape(more_rows, more_columns, *kernel)
    else:
        flat = part["w2_b"].reshape(len(part["w2_b"]), -1)
        second = (part["w2_a"] @ flat).reshape(more_rows, more_columns, *kernel)
    expected = np.kron(first.reshape(rows, columns, *[1] * len(kernel)), second)
    assert relative(change, expected) <= 1e-5  # float32 against float64

    factors = delta.factors()
    assert (factors is None) == (second_rank is None)
    if factors is not None and second_rank:
        down, up = factors
        pairs = (first_rank or min(rows, columns)) * second_rank
        assert len(down) == delta.live_rank == min(pairs, len(weight), weight[0].size)
        assert down.shape[1:] == weight.shape[1:]
        assert relative((up @ down.reshape(len(down), -1)).reshape(weight.shape), change) <= 1e-5
    assert bool(delta.live) == bool(second_rank)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"w1": (2, 3)}, f"unet {Q}: no lokr_w2 for 1 tensor: unet.{Q}.lokr_w1"),
        ({"w2": (2, 3)}, f"unet {Q}: no lokr_w1 for 1 tensor: unet.{Q}.lokr_w2"),
        (
            {"w1": (2, 3), "w2_a": (2, 3)},
            f"unet {Q}: no lokr_w2_b for 2 tensors: unet.{Q}.lokr_w1, unet.{Q}.lokr_w2_a",
        ),
        (
            {"w1": (2, 3), "w1_a": (2, 3), "w2": (4, 5)},
            f"unet {Q}: unexpected 1 tensor: unet.{Q}.lokr_w1_a with unet.{Q}.lokr_w1",
        ),
        (
            {"w1": (2, 3), "w2": (4, 5), "t2": (2, 2, 3, 3)},
            f"unet {Q}: unexpected 1 tensor: unet.{Q}.lokr_t2 with unet.{Q}.lokr_w1",
        ),
        ({"w1": (2, 3), "w2_a": (4, 5), "w2_b": (4, 5)}, f"unet {Q}: lokr_w2_a has rank 5, lokr_w2_b has rank 4"),
        (
            {"w1": (2, 3), "t2": (2, 3, 3, 3), "w2_a": (2, 4), "w2_b": (2, 5)},
            f"unet {Q}: lokr_t2 is 2×3, but the ranks are 2×2",
        ),
        ({"w1": (2,), "w2": (4, 5)}, f"tensor unet.{Q}.lokr_w1 has shape [2]; expected a matrix"),
        (
            {"w1": (20_000, 1), "w2": (1, 20_000)},
            f"unet {Q}: made for a weight of 20000×20000, which is more than 268435456 elements",
        ),
    ],
)
def test_refusals(tmp_path: Path, shapes: Shapes, message: str) -> None:
    assert message_of(AdapterError, lambda: only(tmp_path, lokr(shapes))) == f"x.safetensors: {message}"

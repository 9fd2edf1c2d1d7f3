"""LoRA on convolutions, with a Tucker core, with 8-bit numbers, and refusals."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorablend.adapters.errors import AdapterError
from tests.adapter_files import Stored, encode, message_of
from tests.adapters.algorithms.deltas import CONV, PROPERTY, Q, normal, only

FLAT = f"lora_unet_{CONV.replace('.', '_')}"


def refusal(tmp_path: Path, tensors: dict[str, Stored]) -> str:
    return message_of(AdapterError, lambda: only(tmp_path, tensors))


def locon(down: np.ndarray, up: np.ndarray, name: str = FLAT, dtype: str = "F32") -> dict[str, Stored]:
    """The two tensors as kohya names them."""
    return {
        f"{name}.lora_down.weight": (dtype, encode(down, dtype)),
        f"{name}.lora_up.weight": (dtype, encode(up, dtype)),
    }


def test_a_convolutions_change_is_the_two_convolutions_one_after_the_other(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    down, up, picture = normal(2, 5, 3, 3), normal(4, 2, 1, 1), normal(1, 5, 8, 8)
    change = only(tmp_path, locon(down, up)).dense(np.zeros((4, 5, 3, 3), np.float32))
    conv = torch.nn.functional.conv2d
    ours, first, second, x = map(torch.from_numpy, (change, down, up, picture))
    torch.testing.assert_close(conv(x, ours, padding=1), conv(conv(x, first, padding=1), second), rtol=0, atol=1e-4)


def test_tuckers_change_is_the_three_convolutions_one_after_the_other(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    down, mid, up, picture = normal(3, 5, 1, 1), normal(2, 3, 3, 3), normal(4, 2, 1, 1), normal(1, 5, 8, 8)
    delta = only(tmp_path, locon(down, up) | {f"{FLAT}.lora_mid.weight": ("F32", mid)})
    assert (delta.rank, delta.live, delta.live_rank) == (3, "factors", 2)
    conv = torch.nn.functional.conv2d
    change = delta.dense(np.zeros((4, 5, 3, 3), np.float32))
    ours, first, core, second, x = map(torch.from_numpy, (change, down, mid, up, picture))
    expected = conv(conv(conv(x, first), core, padding=1), second)
    torch.testing.assert_close(conv(x, ours, padding=1), expected, rtol=0, atol=1e-4)


def test_flattened_columns_of_a_convolution_are_split(tmp_path: Path) -> None:
    down, up = normal(2, 5, 3, 3), normal(4, 2)
    whole, flat = only(tmp_path, locon(down, up)), only(tmp_path, locon(down.reshape(2, 45), up), name="y")
    assert (flat.made_for, flat.in_features, flat.out_features) == ("4×5×3×3", 5, 4)
    weight = np.zeros((4, 5, 3, 3), np.float32)
    np.testing.assert_array_equal(whole.dense(weight), flat.dense(weight))
    for delta in (whole, flat):
        raw = delta.raw_factors()
        assert raw is not None
        np.testing.assert_array_equal(raw.down, down)
        assert not raw.down.flags.owndata


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_8_bit_factors(tmp_path: Path, dtype: str) -> None:
    down, up = encode(normal(2, 6), dtype), encode(normal(4, 2), dtype)
    tensors: dict[str, Stored] = {
        f"unet.{Q}.lora_A.weight": (dtype, down),
        f"unet.{Q}.lora_B.weight": (dtype, up),
        f"unet.{Q}.alpha": (dtype, encode(np.full(1, 4, np.float32), dtype)),
    }
    delta = only(tmp_path, tensors)
    assert (delta.dtype, delta.alpha, delta.scale) == ("fp8", 4, 2)
    raw = delta.raw_factors()
    assert raw is not None
    assert raw.down.dtype == raw.up.dtype == np.float16
    torch = pytest.importorskip("torch")
    kind = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}[dtype]
    first, second = (torch.from_numpy(bits).view(kind).float().numpy() for bits in (down, up))
    np.testing.assert_array_equal(raw.down, first)
    np.testing.assert_array_equal(delta.dense(np.zeros((4, 6), np.float32)), (second * 2) @ first)


@PROPERTY
@given(
    out=st.integers(1, 40),
    width=st.integers(1, 40),
    rank=st.integers(1, 48),
    kernel=st.sampled_from([(), (1, 1), (3, 3)]),
    dtype=st.sampled_from(["F8_E4M3", "F8_E5M2", "F16", "BF16", "F32"]),
    alpha=st.none() | st.sampled_from([0.5, 1.0, 7.0, 64.0, -4.0]),
    alpha_form=st.sampled_from([("F32", ()), ("F16", (1,)), ("BF16", (1, 1)), ("F64", ()), ("F8_E5M2", (1,))]),
)
def test_kohya_and_peft_spellings_and_all_forms_give_the_same(
    tmp_path: Path,
    out: int,
    width: int,
    rank: int,
    kernel: tuple[int, ...],
    dtype: str,
    alpha: float | None,
    alpha_form: tuple[str, tuple[int, ...]],
) -> None:
    module = CONV if kernel == (3, 3) else Q
    down, up = normal(rank, width, *kernel), normal(out, rank, *([1, 1] if kernel else []), seed=1)
    name = f"lora_unet_{module.replace('.', '_')}"
    kohya = locon(down, up, name, dtype)
    peft = {
        f"unet.{module}.lora_A.weight": kohya[f"{name}.lora_down.weight"],
        f"unet.{module}.lora_B.weight": kohya[f"{name}.lora_up.weight"],
    }
    metadata = {}
    if alpha is not None:
        kind, shape = alpha_form
        kohya[f"{name}.alpha"] = (kind, encode(np.full(shape, alpha, np.float32), kind))
        metadata = {"lora_adapter_metadata": f'{{"unet.lora_alpha": {alpha}}}'}
    one, other = only(tmp_path, kohya), only(tmp_path, peft, name="y", **metadata)
    weight = np.zeros((out, width, *(kernel or ())), np.float32)
    change = one.dense(weight)
    np.testing.assert_array_equal(change, other.dense(weight), strict=True)
    assert one.scale == (1 if alpha is None else alpha / rank)
    factors = one.factors()
    assert factors is not None
    down, up = factors
    np.testing.assert_array_equal((up @ down.reshape(rank, -1)).reshape(weight.shape), change)
    assert (one.live, one.live_rank) == ("factors", rank)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {f"{FLAT}.lora_mid.weight": ("F32", normal(2, 4, 3, 3))},
            f"unet {CONV}: mid is 2×4, down has rank 3, up has rank 2",
        ),
        (
            {f"{FLAT}.lora_mid.weight": ("F32", normal(2, 3))},
            f"tensor {FLAT}.lora_mid.weight has shape [2, 3]; expected 4 dimensions",
        ),
        (
            locon(normal(3, 5, 3, 3), normal(4, 2)) | {f"{FLAT}.lora_mid.weight": ("F32", normal(2, 3, 3, 3))},
            f"tensor {FLAT}.lora_down.weight has shape [3, 5, 3, 3]; expected a matrix",
        ),
        (
            {f"{FLAT}.lora_mid.weight": ("F32", normal(2, 3, 3, 3)), f"{FLAT}.diff": ("F32", normal(4, 5, 3, 3))},
            f"unet {CONV}: unexpected 1 tensor: {FLAT}.diff with {FLAT}.lora_down.weight",
        ),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_together_are_refused(tmp_path: Path, tensors: dict[str, Stored], message: str) -> None:
    assert refusal(tmp_path, locon(normal(3, 5, 1, 1), normal(4, 2)) | tensors) == f"x.safetensors: {message}"


def test_an_absurd_size_is_refused_without_allocating_it(tmp_path: Path) -> None:
    name = f"lora_unet_{Q.replace('.', '_')}"
    tensors = locon(np.zeros((1, 20_000), np.float32), np.zeros((20_000, 1), np.float32), name)
    assert refusal(tmp_path, tensors) == (
        f"x.safetensors: unet {Q}: made for a weight of 20000×20000, which is more than 268435456 elements"
    )

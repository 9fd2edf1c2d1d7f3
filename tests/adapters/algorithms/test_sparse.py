"""The sparse residual that LyCORIS' extraction writes in addition to a LoRA."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError
from tests.adapter_files import Stored, message_of, write_tensors
from tests.adapters.references import CONV, TO_K

KEY = "lora_unet_" + TO_K.replace(".", "_")


def residual_of(matrix: np.ndarray, key: str = KEY) -> dict[str, Stored]:
    """As `lycoris.utils.extract_diff` stores it."""
    torch = pytest.importorskip("torch")
    sparse = torch.from_numpy(matrix).to_sparse().coalesce()
    return {
        f"{key}.bias_indices": ("I16", sparse.indices().to(torch.int16).numpy()),
        f"{key}.bias_values": ("F16", sparse.values().half().numpy()),
        f"{key}.bias_size": ("I16", torch.tensor(matrix.shape).to(torch.int16).numpy()),
    }


def lora(out: int, inputs: tuple[int, ...], key: str = KEY, alpha: float = 2) -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {
        f"{key}.lora_down.weight": ("F32", random.normal(size=(4, *inputs)).astype(np.float32)),
        f"{key}.lora_up.weight": ("F32", random.normal(size=(out, 4)).astype(np.float32)),
        f"{key}.alpha": ("F32", np.float32(alpha).reshape(())),
    }


@pytest.mark.parametrize(("path", "shape"), [(TO_K, (8, 6)), (CONV, (8, 6, 3, 3))])
def test_it_is_added_before_the_scale(tmp_path: Path, path: str, shape: tuple[int, ...]) -> None:
    key = "lora_unet_" + path.replace(".", "_")
    random = np.random.default_rng(0)
    residual = np.zeros((8, int(np.prod(shape[1:]))), np.float32)
    residual.flat[random.choice(residual.size, 9, replace=False)] = random.integers(1, 64, 9) / 16
    tensors = lora(8, shape[1:], key)
    plain = load_adapter(write_tensors(tmp_path / "plain.safetensors", tensors)).deltas["unet", path]
    both = load_adapter(write_tensors(tmp_path / "both.safetensors", tensors | residual_of(residual, key)))
    delta = both.deltas["unet", path]
    weight = random.normal(size=shape).astype(np.float32)
    expected = plain.dense(weight) + 0.5 * residual.reshape(shape)
    np.testing.assert_allclose(delta.dense(weight), expected, rtol=1e-6, atol=1e-6)  # float32 sums in another order
    assert (delta.algorithm, delta.rank, delta.alpha, delta.scale) == ("lora", 4, 2, 0.5)
    assert (delta.live, delta.factors(), delta.raw_factors()) == ("", None, None)
    assert (delta.in_features, delta.out_features, delta.made_for) == (6, 8, plain.made_for)
    assert not delta.fits((8, 7))


def changed(name: str, dtype: str, values: Any) -> dict[str, Stored]:
    whole = lora(8, (6,)) | residual_of(np.eye(8, 6, dtype=np.float32))
    return whole | {f"{KEY}.{name}": (dtype, np.array(values, {"I16": "<i2", "F16": "<f2", "F32": "<f4"}[dtype]))}


def without(*names: str) -> dict[str, Stored]:
    whole = lora(8, (6,)) | residual_of(np.eye(8, 6, dtype=np.float32))
    return {name: tensor for name, tensor in whole.items() if name.removeprefix(f"{KEY}.") not in names}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            changed("bias_indices", "I16", [[0, 1, 2, 3, 4, 8], [0, 1, 2, 3, 4, 5]]),
            f"tensor {KEY}.bias_indices has indices from 0 to 8, but the size is 8",
        ),
        (
            changed("bias_indices", "I16", [[0, 1, 2, 3, 4, 5], [0, 1, 2, -3, 4, 5]]),
            f"tensor {KEY}.bias_indices has indices from -3 to 5, but the size is 6",
        ),
        (
            changed("bias_size", "F32", [8, 6]),
            f"tensor {KEY}.bias_size is F32; expected whole numbers",
        ),
        (
            changed("bias_values", "F16", [1, 2]),
            f"unet {TO_K}: the sparse residual has shapes [2, 6] and [2] and [2]; expected [2, n], [n] and [2]",
        ),
        (
            without("bias_size"),
            f"unet {TO_K}: no bias_size for 2 tensors: {KEY}.bias_indices, {KEY}.bias_values",
        ),
    ],
)
def test_refused(tmp_path: Path, tensors: dict[str, Stored], message: str) -> None:
    path = write_tensors(tmp_path / "a.safetensors", tensors)
    assert message_of(AdapterError, lambda: load_adapter(path)) == f"a.safetensors: {message}"

"""GLoRA, against LyCORIS."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError
from tests.adapter_files import Stored, message_of, write_tensors
from tests.adapters.references import CONV, TO_K, TO_Q, assert_merges_alike, lycoris_file, relative, small_net

K = "lora_unet_" + TO_K.replace(".", "_")
Q = "lora_unet_" + TO_Q.replace(".", "_")
C = "lora_unet_" + CONV.replace(".", "_")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def write(path: Path, key: str, **roles: np.ndarray) -> Path:
    tensors: dict[str, Stored] = {
        f"{key}.{role}{'' if role == 'alpha' else '.weight'}": ("F32", array) for role, array in roles.items()
    }
    return write_tensors(path, tensors)


@pytest.mark.parametrize("options", [{"linear_alpha": 2}, {"linear_alpha": 3, "use_scalar": True}])
def test_lycoris(tmp_path: Path, options: dict[str, Any]) -> None:
    pytest.importorskip("lycoris")
    adapter = assert_merges_alike(
        *lycoris_file(tmp_path / "a.safetensors", small_net(), algo="glora", linear_dim=4, **options)
    )
    live = {path: (delta.live, delta.live_rank) for (_, path), delta in adapter.deltas.items()}
    assert live.pop(CONV) == ("", 0)
    assert set(live.values()) == {("gate", 8)}


def test_a_tucker_core_like_lycoris_own_formula(tmp_path: Path) -> None:
    # LyCORIS never creates one, because of a condition that cannot be true, but it can compute with one.
    torch = pytest.importorskip("torch")
    formula = pytest.importorskip("lycoris.modules.glora")._glora_weight
    weight = normal(8, 6, 3, 3)
    roles = {
        "a1": normal(6, 4, 1, 1, seed=1),
        "a2": normal(4, 6, 1, 1, seed=2),
        "b1": normal(8, 4, 1, 1, seed=3),
        "b2": normal(4, 6, 1, 1, seed=4),
        "bm": normal(4, 4, 3, 3, seed=5),
    }
    expected = formula(*(torch.from_numpy(a) for a in (weight, *roles.values())), 0.75).numpy()
    path = write(tmp_path / "a.safetensors", C, **roles, alpha=np.float32(3).reshape(()))
    (delta,) = load_adapter(path).deltas.values()
    assert relative(delta.dense(weight), expected) <= 1e-5
    assert delta.made_for == "8×6×3×3"
    assert delta.gated(weight) is None


def test_the_old_layout_has_both_pairs_swapped(tmp_path: Path) -> None:
    weight = normal(8, 6)
    a1, a2, b1, b2 = normal(4, 6, seed=1), normal(6, 4, seed=2), normal(4, 6, seed=3), normal(8, 4, seed=4)
    path = write(tmp_path / "a.safetensors", K, a1=a1, a2=a2, b1=b1, b2=b2, alpha=np.float32(2).reshape(()))
    (delta,) = load_adapter(path).deltas.values()
    assert relative(delta.dense(weight), 0.5 * (b2 @ b1 + weight @ a2 @ a1)) <= 1e-6


@pytest.mark.parametrize(("rank", "size", "old"), [(4, 6, True), (4, 6, False)])
def test_on_a_square_weight_the_rank_is_the_smaller_number(tmp_path: Path, rank: int, size: int, old: bool) -> None:
    weight = normal(size, size)
    wide, tall = (normal(rank, size, seed=seed) for seed in (1, 3)), (normal(size, rank, seed=seed) for seed in (2, 4))
    (into, up), (back, down) = tall, wide
    roles = {"a1": back, "a2": into, "b1": down, "b2": up} if old else {"a1": into, "a2": back, "b1": up, "b2": down}
    (delta,) = load_adapter(write(tmp_path / "a.safetensors", Q, **roles)).deltas.values()
    assert delta.rank == rank
    assert relative(delta.dense(weight), up @ down + weight @ into @ back) <= 1e-6


def test_rank_zero_changes_nothing(tmp_path: Path) -> None:
    empty = {"a1": normal(6, 0), "a2": normal(0, 6), "b1": normal(8, 0), "b2": normal(0, 6)}
    path = write(tmp_path / "a.safetensors", K, **empty)
    message = message_of(AdapterError, lambda: load_adapter(path))
    assert message == "a.safetensors: every module has rank 0, so there is nothing to apply"


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (
            {"a1": normal(6, 4), "a2": normal(4, 6), "b1": normal(8, 4), "b2": normal(5, 6)},
            "there is no common rank of a1 6×4, a2 4×6, b1 8×4, b2 5×6",
        ),
        (
            {"a1": normal(6, 4), "a2": normal(4, 6), "b1": normal(8, 4), "b2": normal(4, 7)},
            "the factors have 6, 6 and 7 inputs; expected three equal numbers",
        ),
        (
            {"a1": normal(6, 4), "a2": normal(4, 6), "b1": normal(8, 4), "b2": normal(4, 6), "bm": normal(3, 4, 3, 3)},
            "bm is 3×4×3×3, but the factors have rank 4",
        ),
    ],
)
def test_refused(tmp_path: Path, roles: dict[str, np.ndarray], message: str) -> None:
    path = write(tmp_path / "a.safetensors", K, **roles)
    assert message_of(AdapterError, lambda: load_adapter(path)) == f"a.safetensors: unet {TO_K}: {message}"


def test_a_weight_of_another_shape(tmp_path: Path) -> None:
    roles = {"a1": normal(6, 4), "a2": normal(4, 6), "b1": normal(8, 4), "b2": normal(4, 6)}
    (delta,) = load_adapter(write(tmp_path / "a.safetensors", K, **roles)).deltas.values()
    message = f"unet {TO_K}: the adapter changes a weight of 8×6, but the model's is 8×7"
    assert message_of(AdapterError, lambda: delta.dense(normal(8, 7))) == message
    assert message_of(AdapterError, lambda: delta.gated(normal(8, 7))) == message

"""OFT and BOFT, against LyCORIS and PEFT."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError
from tests.adapter_files import Stored, message_of, write_tensors
from tests.adapters.references import (
    CONV,
    FF,
    SHORTCUT,
    TO_K,
    TO_Q,
    assert_merges_alike,
    lycoris_file,
    peft_file,
    randomize,
    relative,
    small_net,
)

Q = "lora_unet_" + TO_Q.replace(".", "_")
PEFT_Q = f"base_model.model.{TO_Q}"
TARGETS = ["to_q", "to_k", "net.2", "conv1", "conv_shortcut"]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def stored(key: str, **roles: np.ndarray) -> dict[str, Stored]:
    return {f"{key}.{role}": ("F32", array.astype(np.float32)) for role, array in roles.items()}


def only_delta(path: Path):
    (delta,) = load_adapter(path).deltas.values()
    return delta


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("constraint", [0, 0.01, 10])
@pytest.mark.parametrize("algorithm", ["diag-oft", "boft"])
def test_lycoris(tmp_path: Path, algorithm: str, constraint: float, rescaled: bool) -> None:
    pytest.importorskip("lycoris")
    options = {"algo": algorithm, "linear_dim": 4, "constraint": constraint, "rescaled": rescaled}
    adapter = assert_merges_alike(*lycoris_file(tmp_path / "a.safetensors", small_net(), **options))
    assert {(delta.algorithm, delta.live) for delta in adapter.deltas.values()} == {
        ("oft" if algorithm == "diag-oft" else "boft", "")
    }
    assert {delta.out_features for delta in adapter.deltas.values()} == {32, 16}
    assert {path for _, path in adapter.deltas} == {TO_Q, TO_K, FF, CONV, SHORTCUT}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_cayley_neumann": False},
        {"num_cayley_neumann_terms": 2},
        {"num_cayley_neumann_terms": 3},
        {"num_cayley_neumann_terms": 4},
        {"num_cayley_neumann_terms": 7},
        {"coft": True, "eps": 0.1},
        {"block_share": True},
        {"block_share": True, "coft": True, "eps": 0.1, "use_cayley_neumann": False},
    ],
    ids=str,
)
def test_peft_oft(tmp_path: Path, options: dict[str, Any]) -> None:
    peft = pytest.importorskip("peft")
    config = peft.OFTConfig(target_modules=TARGETS, oft_block_size=8, **options)
    adapter = assert_merges_alike(*peft_file(tmp_path / "a", small_net(), config, only="oft_R"))
    assert {(delta.algorithm, delta.live) for delta in adapter.deltas.values()} == {("oft", "")}
    assert adapter.warnings == (
        f"OFT of 3×3 convolutions (1 layer: unet {CONV}): applied as PEFT merges it; PEFT without merging turns each "
        "patch of pixels by itself, which no weight can do, and draws another picture",
    )


def test_pefts_oft_of_a_convolution_draws_something_else_before_it_is_merged() -> None:
    """Only its merge is a change of a weight. On a linear layer the two agree."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(small_net(), peft.OFTConfig(target_modules=TARGETS, oft_block_size=8))
    randomize(model, 0.2, "oft_R")
    with torch.no_grad():
        for path, inputs, alike in ((TO_Q, (2, 32), True), (CONV, (2, 16, 6, 6), False)):
            layer = model.get_submodule(f"base_model.model.{path}")
            sample = torch.from_numpy(normal(*inputs))
            before = layer(sample)
            layer.merge()
            error = relative(layer(sample).numpy(), before.numpy())
            assert (error < 1e-5) == alike, (path, error)


@pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension", "ignore:Setting boft_n_butterfly_factor")
@pytest.mark.parametrize("options", [{"boft_block_size": 8}, {"boft_block_size": 0, "boft_block_num": 4}], ids=str)
def test_peft_boft(tmp_path: Path, options: dict[str, Any]) -> None:
    peft = pytest.importorskip("peft")
    config = peft.BOFTConfig(target_modules=TARGETS, **options)
    adapter = assert_merges_alike(*peft_file(tmp_path / "a", small_net(), config, only="boft_"))
    assert {(delta.algorithm, delta.live) for delta in adapter.deltas.values()} == {("boft", "")}


@pytest.mark.parametrize("stages", [2, 3])
def test_peft_boft_of_several_stages_which_peft_creates_only_on_a_gpu(tmp_path: Path, stages: int) -> None:
    # PEFT's own Cayley transform and permutations, combined as in its get_delta_weight.
    torch = pytest.importorskip("torch")
    layer = pytest.importorskip("peft.tuners.boft.layer").BOFTLayer
    count, size, out = 8, 4, 12
    blocks, scale, weight = normal(stages, count, size, size), normal(out, 1), normal(out, count * size)
    rotations = layer.cayley_batch(None, torch.from_numpy(blocks).reshape(-1, size, size))
    whole = torch.eye(count * size)
    for stage, turn in enumerate(rotations.reshape(stages, count, size, size)):
        order = layer.block_butterfly_perm(None, count * size, int(count / 2**stage), size // 2, stages - 1)
        permutation = layer.perm2mat(None, order)
        whole = permutation @ torch.block_diag(*turn) @ permutation.T @ whole
    expected = ((whole @ torch.from_numpy(weight).T).T * torch.from_numpy(scale)).numpy() - weight
    delta = only_delta(write_tensors(tmp_path / "a.safetensors", stored(PEFT_Q, boft_R=blocks, boft_s=scale)))
    assert relative(delta.dense(weight), expected) <= 1e-5


def test_a_rotation_keeps_the_norm_of_the_weight(tmp_path: Path) -> None:
    for tensors in (
        stored(Q, oft_blocks=normal(4, 8, 8)),
        stored(Q, oft_blocks=normal(3, 8, 4, 4)),
        stored(PEFT_Q, boft_R=normal(3, 8, 4, 4), boft_s=np.ones((32, 1))),
    ):
        delta = only_delta(write_tensors(tmp_path / "a.safetensors", tensors))
        weight = normal(32, 32)
        assert np.linalg.norm(weight + delta.dense(weight)) == pytest.approx(np.linalg.norm(weight), rel=1e-6)
        assert relative(weight + delta.dense(weight), weight) > 0.5


def test_the_users_weight_interpolates_the_rotation(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    lycoris = pytest.importorskip("lycoris.modules.diag_oft")
    layer = torch.nn.Linear(16, 32, bias=False)
    module = lycoris.DiagOFTModule("oft", layer, lora_dim=4)
    module.oft_blocks.data.normal_(0, 0.2)
    path = write_tensors(tmp_path / "a.safetensors", stored(Q, oft_blocks=module.oft_blocks.detach().numpy()))
    weight = layer.weight.detach().numpy()
    half = module.get_diff_weight(0.5)[0].detach().numpy()
    assert relative(0.5 * only_delta(path).dense(weight), half) <= 1e-5


def test_blocks_of_the_first_version_are_rotations_themselves(tmp_path: Path) -> None:
    blocks, weight = normal(4, 8, 8), normal(32, 5, 3, 3)
    delta = only_delta(write_tensors(tmp_path / "a.safetensors", stored(Q, oft_diag=blocks)))
    expected = np.einsum("knm,kn...->km...", blocks, weight.reshape(4, 8, 5, 3, 3)).reshape(weight.shape) - weight
    assert relative(delta.dense(weight), expected) <= 1e-5


def test_onetrainers_scaled_entries(tmp_path: Path) -> None:
    entries, weight = normal(4, 28), normal(8, 32)
    plain = only_delta(
        write_tensors(tmp_path / "a.safetensors", {f"{Q}.oft_R.weight": ("F32", entries / (2 * 7**0.5))})
    )
    scaled = only_delta(
        write_tensors(
            tmp_path / "b.safetensors",
            {f"{Q}.oft_R.weight": ("F32", entries), f"{Q}.oft_R.scaled_oft": ("BOOL", np.ones((), "|b1"))},
        )
    )
    assert relative(scaled.dense(weight), plain.dense(weight)) <= 1e-6
    assert plain.made_for == "32 inputs"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            stored(Q, oft_blocks=normal(4, 8, 7)),
            f"tensor {Q}.oft_blocks has shape [4, 8, 7]; expected square blocks",
        ),
        (
            stored(Q, oft_blocks=normal(4, 8, 8), rescale=np.ones((31, 1))),
            f"unet {TO_Q}: rescale has shape [31, 1], but the blocks rotate 32 outputs",
        ),
        (stored(Q, oft_blocks=normal(4, 6, 4, 4)), f"unet {TO_Q}: 6 blocks of 4×4 cannot be paired in 4 stages"),
        (stored(Q, oft_blocks=normal(2, 6, 3, 3)), f"unet {TO_Q}: 6 blocks of 3×3 cannot be paired in 2 stages"),
        (stored(Q, oft_blocks=normal(9, 1, 2, 2)), f"unet {TO_Q}: 1 blocks of 2×2 cannot be paired in 9 stages"),
        (
            stored(PEFT_Q, boft_R=normal(2, 6, 3, 3), boft_s=np.ones((32, 1))),
            f"unet {TO_Q}: 6 blocks of 3×3 cannot be paired in 2 stages",
        ),
        (stored(PEFT_Q, boft_R=normal(1, 6, 3, 3)), f"unet {TO_Q}: no boft_s for 1 tensor: {PEFT_Q}.boft_R"),
        (
            stored(PEFT_Q, boft_R=normal(1, 6, 3, 3), boft_s=np.ones((4, 8))),
            f"tensor {PEFT_Q}.boft_s has shape [4, 8]; expected one number per output",
        ),
        (
            {f"{PEFT_Q}.oft_R.weight": ("F32", normal(4, 27))},
            f"tensor {PEFT_Q}.oft_R.weight has 27 columns; no block has as many entries",
        ),
        (
            {f"{PEFT_Q}.oft_R.weight": ("F32", normal(4, 7, 7))},
            f"tensor {PEFT_Q}.oft_R.weight has shape [4, 7, 7]; expected 2 dimensions",
        ),
    ],
)
def test_refused(tmp_path: Path, tensors: dict[str, Stored], message: str) -> None:
    path = write_tensors(tmp_path / "a.safetensors", tensors)
    assert message_of(AdapterError, lambda: load_adapter(path)) == f"a.safetensors: {message}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_cayley_neumann": 1}, "use_cayley_neumann is 1; expected true or false"),
        (
            {"num_cayley_neumann_terms": 1e9},
            "num_cayley_neumann_terms is 1000000000.0; expected a number from 1 to 100",
        ),
        ({"coft": True, "eps": "small"}, "eps is small; expected a number from 0 to 1e+30"),
        ({"coft": True, "eps": float("nan")}, "eps is nan; expected a number from 0 to 1e+30"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    path = write_tensors(tmp_path / "adapter_model.safetensors", {f"{PEFT_Q}.oft_R.weight": ("F32", normal(4, 28))})
    assert message_of(AdapterError, lambda: load_adapter(path)) == (
        f"adapter_model.safetensors: adapter_config.json: {message}"
    )


@pytest.mark.parametrize(
    "tensors",
    [
        stored(Q, oft_blocks=np.triu(np.full((12, 3, 3), 3e38))),
        stored(PEFT_Q, boft_R=np.triu(np.full((1, 12, 3, 3), 3e38)), boft_s=np.ones((36, 1))),
        {f"{PEFT_Q}.oft_R.weight": ("F32", np.full((1, 36), 3e38, np.float32))},
    ],
)
def test_blocks_that_are_too_large(tmp_path: Path, tensors: dict[str, Stored]) -> None:
    delta = only_delta(write_tensors(tmp_path / "a.safetensors", tensors))
    assert message_of(AdapterError, lambda: delta.dense(normal(36, 36))) == (
        f"unet {TO_Q}: the rotations are too large to compute; the file is unusable"
    )


def test_a_weight_of_another_shape(tmp_path: Path) -> None:
    for tensors, made_for in (
        (stored(Q, oft_blocks=normal(4, 8, 8)), "32 outputs"),
        ({f"{PEFT_Q}.oft_R.weight": ("F32", normal(4, 28))}, "32 inputs"),
        ({f"{PEFT_Q}.oft_R.weight": ("F32", normal(1, 28))}, "inputs in blocks of 8"),
        (stored(PEFT_Q, boft_R=normal(1, 4, 8, 8), boft_s=np.ones((32, 1))), "32 outputs and 32 inputs"),
    ):
        delta = only_delta(write_tensors(tmp_path / "a.safetensors", tensors))
        assert not delta.fits((32,))
        assert not delta.fits((30, 30))
        assert delta.fits((32, 32, 1, 1))
        assert message_of(AdapterError, lambda delta=delta: delta.dense(normal(30, 30))) == (
            f"unet {TO_Q}: the adapter changes a weight of {made_for}, but the model's is 30×30"
        )

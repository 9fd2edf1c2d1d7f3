"""The LoRA of two models' difference, compared to LAPACK's SVD, for every format of a model."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError, BaseModelError, InputError, ModelError, RequestError
from lorablend.adapters.files.checkpoint import read_checkpoint
from lorablend.adapters.names.modules import TOPOLOGIES, unet_modules
from lorablend.adapters.tools.extract import extract
from tests.adapter_files import Module, encode, message_of, write_tensors
from tests.adapters.tools.tool_files import flat_deltas, largest_error, truncated

LAYERS: list[Module] = [
    ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"),
    ("unet", "down_blocks.1.resnets.0.conv1"),
    ("unet", "up_blocks.1.resnets.0.conv_shortcut"),
    ("unet", "add_embedding.linear_1"),
    ("text_encoder", "text_model.encoder.layers.0.mlp.fc1"),
    ("text_encoder_2", "text_model.encoder.layers.1.self_attn.k_proj"),
    ("text_encoder_2", "text_projection"),
]
NORM: Module = ("unet", "mid_block.attentions.0.norm")


def weights_file(folder: Path, component: str) -> Path:
    (file,) = (folder / component).glob("*.safetensors")
    return file


def key_in(tensors: dict[str, np.ndarray], path: str) -> str:
    return next(key for key in (f"{path}.weight", f"{path.removeprefix('text_model.')}.weight") if key in tensors)


@pytest.fixture(scope="module")
def tuned(sdxl_source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Module, np.ndarray]]:
    """A copy of the small SDXL model with some weights changed, and the changes."""
    folder = tmp_path_factory.mktemp("tuned") / "model"
    random = np.random.default_rng(0)
    changes: dict[Module, np.ndarray] = {}
    for component in ("unet", "text_encoder", "text_encoder_2"):
        (folder / component).mkdir(parents=True)
        tensors = load_file(weights_file(sdxl_source, component))
        for module in [*LAYERS, NORM]:
            if module[0] == component:
                key = key_in(tensors, module[1])
                before = tensors[key]
                tensors[key] = before + random.normal(0, 0.05, before.shape).astype(np.float32)
                changes[module] = np.float64(tensors[key]) - before
        save_file(tensors, folder / component / weights_file(sdxl_source, component).name)
    return folder, changes


def expected(changes: dict[Module, np.ndarray], rank: int) -> dict[Module, np.ndarray]:
    return {module: truncated(changes[module].reshape(len(changes[module]), -1), rank) for module in LAYERS}


def test_two_folders(sdxl_source: Path, tuned: tuple[Path, dict[Module, np.ndarray]], tmp_path: Path) -> None:
    folder, changes = tuned
    out = tmp_path / "out.safetensors"
    stages: list[tuple[str, int, int]] = []
    report = extract(sdxl_source, folder, out, rank=5, dtype="f32", progress=lambda *stage: stages.append(stage))
    adapter = load_adapter(out)
    assert adapter.base_model == "sdxl"
    # 3e-6: the difference of two float32 weights, and float32 factors
    assert largest_error(flat_deltas(adapter), expected(changes, 5)) < 3e-6
    assert report.left_out == (
        "unet mid_block.attentions.0.norm.weight differs, but is not a layer that a LoRA can change",
    )
    assert [done for _, done, _ in stages] == list(range(stages[0][2] + 1))
    assert adapter.file.tensors["lora_unet_input_blocks_4_0_in_layers_2.lora_down.weight"].shape == (5, 32, 3, 3)
    assert json.loads(adapter.metadata["lorablend.made_by"]) == {
        "tool": "extract",
        "rank": 5,
        "inputs": [
            {
                "name": path.name,
                "weight": weight,
                "sha256": [
                    hashlib.sha256(weights_file(path, name).read_bytes()).hexdigest()
                    for name in ("unet", "text_encoder", "text_encoder_2")
                ],
            }
            for path, weight in ((sdxl_source, -1), (folder, 1))
        ],
    }
    assert adapter.metadata["ss_base_model_version"] == "sdxl_base_v1-0"


def test_a_part_to_keep(sdxl_source: Path, tuned: tuple[Path, dict[Module, np.ndarray]], tmp_path: Path) -> None:
    folder, changes = tuned
    report = extract(sdxl_source, folder, tmp_path / "out.safetensors", keep=0.9)
    for module in LAYERS:
        energy = np.cumsum(np.linalg.svd(changes[module].reshape(len(changes[module]), -1), compute_uv=False) ** 2)
        assert report.ranks[module] == 1 + int((energy < 0.9 * energy[-1]).sum())
    assert report.dtype == "f16"


def open_clip(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename a text encoder to OpenCLIP's names, with q, k and v in one matrix and the projection transposed."""
    named: dict[str, np.ndarray] = {}
    prefix = "" if "encoder.layers.0.mlp.fc1.weight" in tensors else "text_model."
    renames = {"self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    for layer in range(3):
        theirs, ours = f"{prefix}encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for end in ("weight", "bias"):
            qkv = [tensors[f"{theirs}.self_attn.{part}_proj.{end}"] for part in "qkv"]
            named[f"{ours}.attn.in_proj_{end}"] = np.concatenate(qkv)
            for old, new in renames.items():
                named[f"{ours}.{new}.{end}"] = tensors[f"{theirs}.{old}.{end}"]
            named |= {f"{ours}.ln_{i}.{end}": tensors[f"{theirs}.layer_norm{i}.{end}"] for i in (1, 2)}
    named["text_projection"] = np.ascontiguousarray(tensors["text_projection.weight"].T)
    named["token_embedding.weight"] = tensors[f"{prefix}embeddings.token_embedding.weight"]
    named["positional_embedding"] = tensors[f"{prefix}embeddings.position_embedding.weight"]
    named |= {f"ln_final.{end}": tensors[f"{prefix}final_layer_norm.{end}"] for end in ("weight", "bias")}
    return named


def single_file(folder: Path, path: Path, dtype: str = "F32") -> Path:
    """Write the folder's weights as one checkpoint of SDXL, like Stability's own tools."""
    sgm = dict(unet_modules(TOPOLOGIES["sdxl"]))
    tensors: dict[str, np.ndarray] = {"first_stage_model.decoder.conv_in.weight": np.ones((4, 4), np.float32)}
    for key, value in load_file(weights_file(folder, "unet")).items():
        module, _, end = key.rpartition(".")
        tensors[f"model.diffusion_model.{sgm[module]}.{end}"] = value
    for key, value in load_file(weights_file(folder, "text_encoder")).items():
        name = key if key.startswith("text_model.") else f"text_model.{key}"
        tensors[f"conditioner.embedders.0.transformer.{name}"] = value
    second = open_clip(load_file(weights_file(folder, "text_encoder_2")))
    tensors |= {f"conditioner.embedders.1.model.{key}": value for key, value in second.items()}
    return write_tensors(path, {name: (dtype, encode(value, dtype)) for name, value in tensors.items()})


def test_single_checkpoints(sdxl_source: Path, tuned: tuple[Path, dict[Module, np.ndarray]], tmp_path: Path) -> None:
    folder, changes = tuned
    files = [
        single_file(path, tmp_path / name) for path, name in ((sdxl_source, "a.safetensors"), (folder, "b.safetensors"))
    ]
    extract(*files, tmp_path / "out.safetensors", rank=5, dtype="f32")
    assert largest_error(flat_deltas(load_adapter(tmp_path / "out.safetensors")), expected(changes, 5)) < 3e-6
    mixed = extract(sdxl_source, files[1], tmp_path / "mixed.safetensors", rank=5, dtype="f32")
    assert largest_error(flat_deltas(load_adapter(mixed.path)), expected(changes, 5)) < 3e-6
    assert mixed.left_out == (
        "unet mid_block.attentions.0.norm.weight differs, but is not a layer that a LoRA can change",
    )


def test_bfloat16_checkpoints(sdxl_source: Path, tuned: tuple[Path, dict[Module, np.ndarray]], tmp_path: Path) -> None:
    files = [single_file(path, tmp_path / f"{path.name}.safetensors", "BF16") for path in (sdxl_source, tuned[0])]
    extract(*files, tmp_path / "out.safetensors", rank=4, dtype="f32")
    weights = [
        {key: (encode(value, "BF16").astype(np.uint32) << 16).view(np.float32) for key, value in tensors.items()}
        for tensors in (load_file(weights_file(path, "unet")) for path in (sdxl_source, tuned[0]))
    ]
    extracted = flat_deltas(load_adapter(tmp_path / "out.safetensors"))
    for component, path in LAYERS:
        if component == "unet":
            change = np.float64(weights[1][f"{path}.weight"]) - weights[0][f"{path}.weight"]
            best = truncated(change.reshape(len(change), -1), 4)
            assert np.linalg.norm(extracted[component, path] - best) < 3e-6 * np.linalg.norm(best)


def test_shards_and_precisions(sdxl_source: Path, tuned: tuple[Path, dict[Module, np.ndarray]], tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(tuned[0], folder)
    whole = weights_file(folder, "unet")
    tensors = list(load_file(whole).items())
    for index, part in enumerate((tensors[::2], tensors[1::2])):
        save_file(dict(part), folder / "unet" / f"diffusion_pytorch_model-0000{index + 1}-of-00002.safetensors")
    whole.rename(folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    extract(sdxl_source, folder, tmp_path / "out.safetensors", rank=5, dtype="f32")
    assert largest_error(flat_deltas(load_adapter(tmp_path / "out.safetensors")), expected(tuned[1], 5)) < 3e-6


def test_differences_that_a_lora_cannot_contain_are_listed(sdxl_source: Path, tmp_path: Path) -> None:
    def changed(name: str, change: Callable[[dict[str, Any]], None]) -> Path:
        (tmp_path / name / "unet").mkdir(parents=True)
        tensors = load_file(weights_file(sdxl_source, "unet"))
        change(tensors)
        save_file(tensors, tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors")
        return tmp_path / name

    def inpainting(tensors: dict[str, Any]) -> None:
        tensors["conv_in.weight"] = np.zeros((32, 9, 3, 3), np.float32)
        del tensors["mid_block.attentions.0.norm.weight"]
        tensors["conv_out.weight"] += 1

    plain, other = changed("plain", lambda _: None), changed("other", inpainting)
    report = extract(plain, other, tmp_path / "out.safetensors", rank=2)
    assert report.left_out == (
        "unet conv_in.weight is 32×4×3×3 in plain, 32×9×3×3 in the other",
        "unet mid_block.attentions.0.norm.weight is only in plain",
    )
    assert list(report.ranks) == [("unet", "conv_out")]
    # all ones, so of rank 1
    assert report.ranks["unet", "conv_out"] == 1

    def broken(tensors: dict[str, Any]) -> None:
        tensors["conv_out.weight"][0] = np.nan

    nan = changed("nan", broken)
    assert message_of(AdapterError, lambda: extract(plain, nan, tmp_path / "no.safetensors", rank=2)) == (
        "unet conv_out.weight contains NaN or infinity; the model is unusable"
    )
    assert message_of(AdapterError, lambda: extract(plain, plain, tmp_path / "no.safetensors", rank=2)) == (
        "no.safetensors: nothing to write, because every change is zero"
    )


def test_refusals(sdxl_source: Path, sd15_source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"

    def message(error: type[Exception], *args: Any, **settings: Any) -> str:
        return message_of(error, lambda: extract(*args, **{"rank": 4, **settings}))

    assert message(RequestError, sdxl_source, sdxl_source, out, rank=None) == (
        "neither a rank nor a part to keep; give one of them, or both"
    )
    assert message(RequestError, sdxl_source, sdxl_source, out, keep=2) == (
        "the part to keep is 2; give a number above 0 and at most 1"
    )
    assert message(BaseModelError, sdxl_source, sd15_source, out) == (
        f"{sdxl_source.name} is for sdxl and {sd15_source.name} is for sd15; give two models of one kind"
    )
    assert message(ModelError, tmp_path / "no", sdxl_source, out) == (
        f"{tmp_path / 'no'} does not exist; give a diffusers folder or a .safetensors checkpoint"
    )
    assert message(ModelError, tmp_path, sdxl_source, out) == (
        f"{tmp_path} has no weights of a UNet or a text encoder; "
        "give a diffusers folder or a .safetensors checkpoint of SDXL or SD 1.x"
    )
    assert message(InputError, sdxl_source, sdxl_source, weights_file(sdxl_source, "unet")) == (
        f"{weights_file(sdxl_source, 'unet')} is already there; choose another name or delete it"
    )
    assert not out.exists()


def test_the_kind_of_model(sdxl_source: Path, sd15_source: Path, tmp_path: Path) -> None:
    assert read_checkpoint(sdxl_source).base_model == "sdxl"
    assert read_checkpoint(sd15_source).base_model == "sd15"
    name = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    sd2 = write_tensors(tmp_path / "sd2.safetensors", {name: ("F32", np.ones((8, 1024), np.float32))})
    assert read_checkpoint(sd2).base_model == "sd2"


@pytest.mark.parametrize("scale_name", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("scale", [[0.5], [1, 2, 3, 4]])
def test_scaled_fp8(tmp_path: Path, scale_name: str, scale: list[float]) -> None:
    """ComfyUI's: the scale is not a weight of its own; it multiplies the weight or each of its rows."""
    weight = np.arange(8, dtype=np.float32).reshape(4, 2)
    factors = np.array(scale, np.float32)
    names = {
        "model.diffusion_model.time_embed.0": ("unet", "time_embedding.linear_1.weight"),
        "conditioner.embedders.1.transformer.text_model.encoder.layers.0.mlp.fc1": (
            "text_encoder_2",
            "text_model.encoder.layers.0.mlp.fc1.weight",
        ),
    }
    for start, module in names.items():
        tensors = {
            f"{start}.{scale_name}": ("F32", factors),
            f"{start}.weight": ("F8_E4M3", encode(weight, "F8_E4M3")),
        }
        checkpoint = read_checkpoint(write_tensors(tmp_path / "x.safetensors", tensors))
        assert checkpoint.parts.keys() == {module}
        np.testing.assert_array_equal(checkpoint.parts[module].read(), weight * factors.reshape(-1, 1))
    name = "model.diffusion_model.time_embed.0"
    wrong = {
        f"{name}.{scale_name}": ("F32", np.ones((2, 1), np.float32)),
        f"{name}.weight": ("F8_E4M3", encode(weight, "F8_E4M3")),
    }
    path = write_tensors(tmp_path / "x.safetensors", wrong)
    assert message_of(ModelError, lambda: read_checkpoint(path)) == (
        f"x.safetensors: {name}.{scale_name} has shape [2, 1]; expected one number, or one for each of the 4 rows; "
        "give a checkpoint in fp16"
    )


@pytest.mark.parametrize("end", ["weight_scale_inv", "scale_inv", "weight.scale"])
def test_scales_in_other_forms_are_refused(tmp_path: Path, end: str) -> None:
    """Left out, they would leave weights that are hundreds of times too large."""
    name = "model.diffusion_model.time_embed.0"
    weight = np.ones((4, 3), np.float32)
    tensors = {
        f"{name}.{end}": ("F32", np.ones(1, np.float32)),
        f"{name}.weight": ("F8_E4M3", encode(weight, "F8_E4M3")),
    }
    path = write_tensors(tmp_path / "x.safetensors", tensors)
    assert message_of(ModelError, lambda: read_checkpoint(path)) == (
        f"x.safetensors: {name}.{end} is a scale in a form that is not known; give a checkpoint in fp16"
    )

"""The checks of a source before the work begins, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lorablend.adapters.errors import ModelError
from lorablend.convert.checkpoint import checkpoint_family, inspect_checkpoint
from lorablend.convert.conversion import find_source
from lorablend.convert.source import files_to_download, read_checkpoint, read_folder
from tests.convert.checkpoints import write_checkpoint
from tests.convert.sources import SDXL_NETWORKS, WHERE, write_folder, write_tensors


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        read_folder(folder, "model", revision=None, half=True)
    return str(error.value)


def test_folder(tmp_path: Path) -> None:
    source = read_folder(write_folder(tmp_path), "owner/name", revision="abc", half=True)
    assert (source.name, source.revision, source.checkpoint) == ("owner/name", "abc", None)
    assert source.parameters == dict.fromkeys(SDXL_NETWORKS, 6)
    assert source.variants == {}


def test_linked_files_count(tmp_path: Path) -> None:
    write_folder(tmp_path / "a")
    (tmp_path / "a" / "unet").rename(tmp_path / "unet")
    (tmp_path / "a" / "unet").symlink_to(tmp_path / "unet", target_is_directory=True)
    assert read_folder(tmp_path / "a", "model", revision=None, half=True).parameters["unet"] == 6


@pytest.mark.parametrize(("half", "variant"), [(True, {"unet": "fp16"}), (False, {})])
def test_fp16_variant_only_where_wanted(tmp_path: Path, half: bool, variant: dict[str, str]) -> None:
    write_folder(tmp_path)
    write_tensors(tmp_path / "unet/diffusion_pytorch_model.fp16.safetensors")
    assert read_folder(tmp_path, "model", revision=None, half=half).variants == variant


def test_fp16_variant_where_there_is_no_other(tmp_path: Path) -> None:
    whole = write_folder(tmp_path) / f"{WHERE['vae']}.safetensors"
    whole.rename(tmp_path / f"{WHERE['vae']}.fp16.safetensors")
    assert read_folder(tmp_path, "model", revision=None, half=False).variants == {"vae": "fp16"}


def test_shards(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / f"{WHERE['unet']}.safetensors").unlink()
    write_tensors(tmp_path / f"{WHERE['unet']}-00001-of-00002.safetensors")
    assert refusal(tmp_path) == "model lacks unet/diffusion_pytorch_model.safetensors; give a complete diffusers folder"
    write_tensors(tmp_path / f"{WHERE['unet']}-00002-of-00002.safetensors")
    assert read_folder(tmp_path, "model", revision=None, half=True).parameters["unet"] == 12


def test_no_index(tmp_path: Path) -> None:
    expected = "model has no model_index.json; give a diffusers folder or a .safetensors checkpoint"
    assert refusal(tmp_path) == expected


def test_broken_index(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{")
    assert refusal(tmp_path).startswith("model: model_index.json cannot be read: Expecting property name")


def test_other_pipeline(tmp_path: Path) -> None:
    write_folder(tmp_path, "FluxPipeline")
    assert refusal(tmp_path) == (
        "model is a FluxPipeline; give one of StableDiffusionPipeline, StableDiffusionInpaintPipeline, "
        "LatentConsistencyModelPipeline, StableDiffusionXLPipeline, StableDiffusionXLInpaintPipeline"
    )


def test_missing_configurations_are_all_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for file in ("unet/config.json", "tokenizer_2/tokenizer.json", "scheduler/scheduler_config.json"):
        (tmp_path / file).unlink()
    assert refusal(tmp_path) == (
        "model lacks unet/config.json, tokenizer_2/vocab.json, tokenizer_2/merges.txt, "
        "scheduler/scheduler_config.json; give a complete diffusers folder"
    )


def test_missing_weights_are_all_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "vae/diffusion_pytorch_model.safetensors").rename(tmp_path / "vae/diffusion_pytorch_model.bin")
    (tmp_path / "text_encoder/model.safetensors").unlink()
    assert refusal(tmp_path) == (
        "model lacks text_encoder/model.safetensors, vae/diffusion_pytorch_model.safetensors; "
        "give a complete diffusers folder"
    )


def test_cut_off_weights(tmp_path: Path) -> None:
    file = write_folder(tmp_path) / "unet/diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    message = refusal(tmp_path)
    assert message.startswith("model: unet/diffusion_pytorch_model.safetensors is not a readable safetensors file: ")
    assert message.endswith("; download it again")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (
            "conditioner.embedders.0.model.ln_final.weight",
            "x.safetensors is an SDXL refiner; give an SDXL base or SD 1.x checkpoint",
        ),
        (
            "cond_stage_model.model.ln_final.weight",
            "x.safetensors is a Stable Diffusion 2 checkpoint; convert the diffusers folder of that model",
        ),
        (
            "lora_unet_conv_in.lora_down.weight",
            "x.safetensors is not an SDXL or SD 1.x checkpoint: it has no model.diffusion_model.* tensors",
        ),
    ],
)
def test_checkpoint_of_another_family(tmp_path: Path, key: str, expected: str) -> None:
    with pytest.raises(ModelError) as error:
        checkpoint_family(write_tensors(tmp_path / "x.safetensors", key))
    assert str(error.value) == expected


UNET = "model.diffusion_model."


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({f"{UNET}label_emb.0.0.weight": [8, 8]}, "SDXL"),
        ({f"{UNET}label_emb.0.0.weight": [8, 8], "cond_stage_model.transformer.a": [1]}, "SDXL"),
        ({f"{UNET}label_emb.0.0.weight": [8, 8], f"{UNET}input_blocks.11.0.in_layers.0.weight": [8]}, "refiner"),
        ({f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": [8, 768]}, "SD 1.x"),
        ({f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": [8, 1024]}, "Stable Diffusion 2"),
        ({f"{UNET}a": [1], "conditioner.embedders.1.transformer.a": [1]}, "SDXL"),
        ({"conditioner.embedders.1.model.a": [1]}, "SDXL"),
        ({f"{UNET}a": [1]}, "SD 1.x"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_the_family_is_told_from_the_unet(tmp_path: Path, shapes: dict[str, list[int]], expected: str) -> None:
    file = tmp_path / "x.safetensors"
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, file)
    try:
        told = checkpoint_family(file)
    except ModelError as error:
        told = str(error)
    assert expected in told


@pytest.fixture(scope="module")
def whole(sdxl_source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The tensors of an SDXL checkpoint."""
    return load_file(write_checkpoint(sdxl_source, tmp_path_factory.mktemp("whole") / "x.safetensors"))


@pytest.mark.parametrize(
    ("left", "message"),
    [
        (
            "conditioner.",
            "lacks text_encoder (conditioner.embedders.0.transformer.*), text_encoder_2 "
            "(conditioner.embedders.1.model.*); give a full checkpoint",
        ),
        ("conditioner.embedders.1.", "lacks text_encoder_2 (conditioner.embedders.1.model.*); give a full checkpoint"),
        (UNET, "lacks unet (model.diffusion_model.*); give a full checkpoint"),
        ("first_stage_model.", "lacks vae (first_stage_model.*); give a full checkpoint"),
    ],
)
def test_what_a_checkpoint_lacks_is_named_before_any_work(
    whole: dict[str, np.ndarray], tmp_path: Path, left: str, message: str
) -> None:
    file = tmp_path / "x.safetensors"
    save_file({name: tensor for name, tensor in whole.items() if not name.startswith(left)}, file)
    with pytest.raises(ModelError) as error:
        find_source(file, None, "fp16", lambda *_: pytest.fail("it began to download"))
    assert str(error.value) == f"x.safetensors {message}"


def test_every_tensor_of_a_checkpoint_is_understood(sdxl_source: Path, sd15_source: Path, tmp_path: Path) -> None:
    for number, source in enumerate((sdxl_source, sd15_source)):
        file = write_checkpoint(source, tmp_path / f"{number}.safetensors", extra=["v_pred"])
        assert inspect_checkpoint(file).left_out == ()


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        (f"{UNET}input_blocks.1.0.adapter.weight", True),
        (f"{UNET}input_blocks.1.0.in_layers.2.lora_down", True),
        ("first_stage_model.decoder.up.0.attn.0.q.weight", True),
        ("first_stage_model.quant_conv.scale_weight", False),
        ("first_stage_model.encoder.scale_weight", True),  # of no weight
        ("first_stage_model.loss.discriminator.main.0.weight", False),
        ("conditioner.embedders.0.transformer.text_model.embeddings.position_ids", False),
        ("conditioner.embedders.1.model.logit_scale", False),
        ("conditioner.embedders.1.model.visual.proj", True),
        (f"{UNET}scaled_fp8", False),
        (f"{UNET}time_embed.0.scale_input", False),
        (f"{UNET}time_embed.0.comfy_quant", False),
        ("model_ema.decay", False),  # in none of the networks
        ("modelspec", False),
    ],
)
def test_tensors_that_no_module_takes_are_said(
    sdxl_source: Path,
    whole: dict[str, np.ndarray],
    tmp_path: Path,
    name: str,
    left_out: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "x.safetensors"
    save_file(whole | {name: np.ones(1, np.float32)}, file)
    assert find_source(file, sdxl_source, "fp16", lambda *_: None).left_out == ((name,) if left_out else ())
    said = f"x.safetensors: 1 tensor: {name} in no module of its networks, left out"
    assert [record.getMessage() for record in caplog.records] == ([said] if left_out else [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"": np.zeros((4, 4), np.uint8)}, "1 tensor: {}weight (U8)"),
        ({"scale_weight": np.zeros((2, 3), np.float32)}, "1 tensor: {}scale_weight (F32 [2, 3])"),
        ({"weight_scale": np.zeros(1, np.uint8)}, "1 tensor: {}weight_scale (U8 [1])"),
        ({"weight_scale_inv": np.zeros(1, np.float32)}, "1 tensor: {}weight_scale_inv (F32)"),
        ({"scale_inv": np.zeros(1, np.float32)}, "1 tensor: {}scale_inv (F32)"),
        ({"weight.scale": np.zeros(1, np.float32)}, "1 tensor: {}weight.scale (F32)"),
    ],
)
def test_weights_in_a_form_that_is_not_supported(
    whole: dict[str, np.ndarray], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    file, start = tmp_path / "x.safetensors", f"{UNET}time_embed.0."
    changed = {start + (end or "weight"): value for end, value in change.items()}
    save_file(whole | changed, file)
    with pytest.raises(ModelError) as error:
        inspect_checkpoint(file)
    assert str(error.value) == (
        f"x.safetensors has weights in a form that is not supported: {message.format(start)}; give one in fp16 or fp8"
    )


def test_an_inpainting_checkpoint(sdxl_source: Path, whole: dict[str, np.ndarray], tmp_path: Path) -> None:
    """Refused before the work, by the number of its channels."""
    first = f"{UNET}input_blocks.0.0.weight"
    save_file(whole | {first: np.zeros((len(whole[first]), 9, 3, 3), np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError) as error:
        read_checkpoint(tmp_path / "x.safetensors", sdxl_source)
    assert str(error.value) == (
        f"x.safetensors has a UNet that takes 9 channels, as in an inpainting model, but {sdxl_source} configures 4; "
        "give a plain checkpoint, or the diffusers folder of that model"
    )


def test_missing_and_broken_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        checkpoint_family(tmp_path / "x.safetensors")
    assert str(error.value) == f"{tmp_path / 'x.safetensors'} does not exist; give a .safetensors checkpoint"
    (tmp_path / "x.safetensors").write_bytes(b"PK")
    with pytest.raises(ModelError) as error:
        checkpoint_family(tmp_path / "x.safetensors")
    assert str(error.value).startswith("x.safetensors is not a readable safetensors file: ")


def test_checkpoint_without_vae(tmp_path: Path) -> None:
    keys = ("model.diffusion_model.a", "conditioner.embedders.0.transformer.a", "conditioner.embedders.1.model.a")
    file = write_tensors(tmp_path / "x.safetensors", *keys)
    with pytest.raises(ModelError) as error:
        read_checkpoint(file, write_folder(tmp_path / "config"))
    assert str(error.value) == "x.safetensors lacks vae (first_stage_model.*); give a full checkpoint"


def test_checkpoint_with_the_wrong_config(tmp_path: Path) -> None:
    networks = ("model.diffusion_model.a", "cond_stage_model.transformer.a", "first_stage_model.a")
    file = write_tensors(tmp_path / "x.safetensors", *networks)
    config = write_folder(tmp_path / "config")
    with pytest.raises(ModelError) as error:
        read_checkpoint(file, config)
    assert str(error.value) == (
        f"x.safetensors is an SD 1.x checkpoint, but {config} configures SDXL; give a matching config"
    )


@pytest.mark.parametrize(
    ("marks", "metadata", "expected"),
    [
        ((), {}, {}),
        (("v_pred",), {}, {"prediction_type": "v_prediction"}),
        ((), {"modelspec.prediction_type": "v"}, {"prediction_type": "v_prediction"}),
        ((), {"modelspec.prediction_type": "epsilon"}, {}),
        (("ztsnr",), {}, {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ],
)
def test_checkpoint_says_what_it_predicts(
    tmp_path: Path, marks: tuple[str, ...], metadata: dict[str, str], expected: dict[str, Any]
) -> None:
    keys = ("model.diffusion_model.a", "conditioner.embedders.0.transformer.a", "conditioner.embedders.1.model.a")
    file = write_tensors(tmp_path / "x.safetensors", *keys, "first_stage_model.a", *marks, metadata=metadata)
    assert read_checkpoint(file, write_folder(tmp_path / "config")).scheduler == expected


def test_download_takes_one_copy_of_the_weights() -> None:
    index = {"_class_name": "StableDiffusionPipeline"}
    parts = ["model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json"]
    parts += ["tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json"]
    fp16 = [f"{WHERE[network]}.fp16.safetensors" for network in ("unet", "vae", "text_encoder")]
    fp32 = [f"{WHERE[network]}.safetensors" for network in ("unet", "vae", "text_encoder")]
    others = ["README.md", "unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors", "v1-5.ckpt"]
    every = [*parts, *fp16, *fp32, *others]
    assert files_to_download(index, every, half=True) == sorted([*parts, *fp16])
    assert files_to_download(index, every, half=False) == sorted([*parts, *fp32])

"""The checks of a source before the work begins, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lorablend.adapters.errors import ModelError
from lorablend.convert.source import checkpoint_family, files_to_download, read_checkpoint, read_folder
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
    file = write_tensors(tmp_path / "x.safetensors", "model.diffusion_model.a", "cond_stage_model.transformer.a")
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

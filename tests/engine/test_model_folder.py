"""Model folders: what is read from them, and a refusal for each way in which one can be wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorablend.adapters.errors import ModelError
from lorablend.engine.model_folder import ModelFolder

NETWORKS = ("unet", "text_encoder", "text_encoder_2", "vae_decoder", "vae_encoder")
CONFIGS: dict[str, dict[str, Any]] = {
    "unet": {"in_channels": 4, "sample_size": 128, "cross_attention_dim": 2048},
    "vae_decoder": {"block_out_channels": [1, 1, 1, 1], "scaling_factor": 0.13025, "latent_channels": 4},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of an SDXL folder, with empty networks."""
    root = tmp_path / "sdxl"
    for name in NETWORKS:
        (root / name).mkdir(parents=True)
        (root / name / "openvino_model.xml").write_text("<net/>")
        (root / name / "openvino_model.bin").write_bytes(b"")
        (root / name / "config.json").write_text(json.dumps(CONFIGS.get(name, {})))
    for number, name in enumerate(("tokenizer", "tokenizer_2")):
        (root / name).mkdir()
        xml = f'<net><rt_info><pad_token_id value="{number}"/></rt_info></net>'
        (root / name / "openvino_tokenizer.xml").write_text(xml)
        (root / name / "openvino_tokenizer.bin").write_bytes(b"")
        (root / name / "tokenizer_config.json").write_text('{"model_max_length": 77}')
    (root / "scheduler").mkdir()
    scheduler = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (root / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    return root


def test_reads_an_export(sdxl_model: Path) -> None:
    model = ModelFolder(sdxl_model)
    assert model.family == "sdxl"
    assert model.scheduler_class == "EulerDiscreteScheduler"
    assert model.default_size == (64, 64)
    assert (model.in_channels, model.latent_channels, model.vae_scale_factor) == (4, 4, 8)
    assert (model.scaling_factor, model.shift_factor) == (0.13025, 0.0)
    assert model.force_zeros_for_empty_prompt
    assert {name: (t.max_length, t.pad_token_id) for name, t in model.tokenizers.items()} == {
        "tokenizer": (77, 519),
        "tokenizer_2": (77, 0),
    }
    assert set(model.components) == {*NETWORKS, "tokenizer", "tokenizer_2"}
    assert model.component("unet") == sdxl_model / "unet" / "openvino_model.xml"


@pytest.mark.parametrize(
    ("class_name", "width", "family"),
    [
        ("StableDiffusionXLPipeline", 2048, "sdxl"),
        ("OVStableDiffusionXLPipeline", 2048, "sdxl"),
        ("StableDiffusionXLImg2ImgPipeline", 2048, "sdxl"),
        ("StableDiffusionXLInpaintPipeline", 2048, "sdxl"),
        ("StableDiffusionPipeline", 768, "sd15"),
        ("StableDiffusionPipeline", 1024, "sd2"),
        ("StableDiffusionInpaintPipeline", 768, "sd15"),
        ("LatentConsistencyModelPipeline", 768, "sd15"),
    ],
)
def test_family(folder: Path, class_name: str, width: int, family: str) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": class_name}))
    (folder / "unet" / "config.json").write_text(json.dumps(CONFIGS["unet"] | {"cross_attention_dim": width}))
    model = ModelFolder(folder)
    assert model.family == family
    assert model.force_zeros_for_empty_prompt == (family == "sdxl")


def test_sizes_of_two_sides(folder: Path) -> None:
    (folder / "unet" / "config.json").write_text(json.dumps(CONFIGS["unet"] | {"sample_size": [96, 64]}))
    assert ModelFolder(folder).default_size == (512, 768)  # the config has height first


def test_a_missing_vae_encoder_matters_only_when_requested(folder: Path) -> None:
    (folder / "vae_encoder" / "openvino_model.xml").unlink()
    model = ModelFolder(folder)
    with pytest.raises(ModelError) as caught:
        model.component("vae_encoder")
    names = "text_encoder, text_encoder_2, tokenizer, tokenizer_2, unet, vae_decoder"
    assert str(caught.value) == f"{folder} has no vae_encoder; it has {names}"


def _remove(file: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).unlink()


def _write(file: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_text(text)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_remove("model_index.json"), "has no model_index.json; give a model folder written by `lorablend convert`"),
        (_remove("unet/openvino_model.xml"), "has no unet/openvino_model.xml; convert it with `lorablend convert`"),
        (_remove("unet/openvino_model.bin"), "has no unet/openvino_model.bin; convert it with `lorablend convert`"),
        (_remove("vae_decoder/config.json"), "has no vae_decoder/config.json; convert it with `lorablend convert`"),
        (
            _remove("tokenizer_2/openvino_tokenizer.xml"),
            "has no tokenizer_2/openvino_tokenizer.xml; convert it with `lorablend convert`",
        ),
        (
            _remove("scheduler/scheduler_config.json"),
            "has no scheduler/scheduler_config.json; convert it with `lorablend convert`",
        ),
        (
            _write("model_index.json", '{"_class_name": "FluxPipeline"}'),
            "holds a FluxPipeline; give an SDXL or Stable Diffusion 1.x/2.x model",
        ),
        (
            _write("unet/config.json", "[]"),
            "/unet/config.json holds a list, not an object; convert it with `lorablend convert`",
        ),
        (
            _write("unet/config.json", "{"),
            "/unet/config.json is not valid JSON: Expecting property name enclosed in double quotes: "
            "line 1 column 2 (char 1); convert it with `lorablend convert`",
        ),
        (
            _write("tokenizer/openvino_tokenizer.xml", "<net/>"),
            "/tokenizer/openvino_tokenizer.xml has no pad_token_id; convert it with `lorablend convert`",
        ),
    ],
)
def test_refusals(folder: Path, break_it: Callable[[Path], object], message: str) -> None:
    break_it(folder)
    with pytest.raises(ModelError) as caught:
        ModelFolder(folder)
    assert str(caught.value).removeprefix(str(folder)).lstrip() == message


def test_diffusers_folder(sdxl_source: Path) -> None:
    with pytest.raises(ModelError) as caught:
        ModelFolder(sdxl_source)
    message = f"{sdxl_source} has no unet/openvino_model.xml; convert it with `lorablend convert`"
    assert str(caught.value) == message


def test_not_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    with pytest.raises(ModelError) as caught:
        ModelFolder(file)
    assert str(caught.value) == f"{file} does not exist; give a model folder written by `lorablend convert`"
    file.touch()
    with pytest.raises(ModelError) as caught:
        ModelFolder(file)
    assert str(caught.value) == f"{file} is a file, not a model folder; convert it with `lorablend convert`"


def test_fingerprint(folder: Path) -> None:
    before = ModelFolder(folder).fingerprint
    assert ModelFolder(folder).fingerprint == before
    (folder / "notes.txt").write_text("not part of the model")
    assert ModelFolder(folder).fingerprint == before
    weights = folder / "unet" / "openvino_model.bin"
    os.utime(weights, (1, 1))
    other_time = ModelFolder(folder).fingerprint
    weights.write_bytes(b"1")
    os.utime(weights, (1, 1))
    other_size = ModelFolder(folder).fingerprint
    (folder / "unet" / "openvino_model.xml").write_text("<net></net>")
    assert len({before, other_time, other_size, ModelFolder(folder).fingerprint}) == 4

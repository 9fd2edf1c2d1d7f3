"""Model folders: what is read from them, and a refusal for each way in which one can be wrong."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters.errors import ModelError
from lorablend.engine import Pipeline
from lorablend.engine.bake import bake
from lorablend.engine.live.vae import Vae
from lorablend.engine.model_folder import ModelFolder
from lorablend.shipped import model_dir as demo_model

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


STATISTICS = {"latents_mean": [-1.6574, 1.886, -1.383, 2.5155], "latents_std": [8.4927, 5.9022, 6.5498, 5.2299]}


def with_vae(folder: Path, **entries: Any) -> ModelFolder:
    config = folder / "vae_decoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | entries))
    return ModelFolder(folder)


def test_statistics_of_the_latents(folder: Path) -> None:
    """As in diffusers: both or none, and only for SDXL."""
    assert with_vae(folder).latent_statistics is None
    assert with_vae(folder, latents_mean=STATISTICS["latents_mean"], latents_std=None).latent_statistics is None
    statistics = with_vae(folder, **STATISTICS).latent_statistics
    assert statistics is not None
    mean, std = statistics
    np.testing.assert_array_equal(mean.reshape(-1), np.float32(STATISTICS["latents_mean"]))
    np.testing.assert_array_equal(std.reshape(-1), np.float32(STATISTICS["latents_std"]))


@pytest.mark.parametrize("std", [[1, 2, 3], [1, 2, 3, 0], "1", [1, 2, 3, "x"], 5])
def test_statistics_that_make_no_sense(folder: Path, std: Any) -> None:
    model = with_vae(folder, latents_mean=[0, 0, 0, 0], latents_std=std)
    with pytest.raises(ModelError) as error:
        _ = model.latent_statistics
    assert str(error.value) == (
        f"{folder}: latents_mean and latents_std in vae_decoder/config.json are [0, 0, 0, 0] and {std}; expected 4 "
        "numbers each, and none of the second 0"
    )


@pytest.mark.parametrize("factor", ["x", 0, -1, True, [0.1]])
def test_a_factor_that_makes_no_sense(folder: Path, factor: Any) -> None:
    model = with_vae(folder, scaling_factor=factor)
    with pytest.raises(ModelError) as error:
        _ = model.scaling_factor
    message = f"{folder}: scaling_factor in vae_decoder/config.json is {factor}; expected a number above 0"
    assert str(error.value) == message


def test_the_vae_uses_the_statistics_as_diffusers_does(tmp_path: Path) -> None:
    """GenAI would ignore them."""
    torch = pytest.importorskip("torch")
    import openvino as ov

    shutil.copytree(demo_model(), tmp_path / "m")
    model, plain = with_vae(tmp_path / "m", **STATISTICS), ModelFolder(demo_model())
    ours, theirs = (Vae(ov.Core(), each, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}) for each in (model, plain))
    latent = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
    # pipeline_stable_diffusion_xl.py: latents * latents_std / scaling_factor + latents_mean
    std, mean = (torch.tensor(STATISTICS[f"latents_{name}"]).view(1, 4, 1, 1) for name in ("std", "mean"))
    factor = plain.scaling_factor
    decoded = (torch.from_numpy(latent) * std / factor + mean).numpy()
    np.testing.assert_array_equal(ours.decode(latent), theirs.decode(decoded * factor))
    picture = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    # pipeline_stable_diffusion_xl_img2img.py: (latents - latents_mean) * scaling_factor / latents_std
    encoded = (torch.from_numpy(theirs.encode(picture) / factor) - mean) * factor / std
    np.testing.assert_allclose(ours.encode(picture), encoded.numpy(), rtol=1e-4, atol=1e-5)

    message = (
        f"{tmp_path / 'm'}: the VAE has latents_mean and latents_std, which OpenVINO GenAI ignores, so that its "
        "pictures would be wrong; use runtime=live"
    )
    for refused in (lambda: Pipeline(tmp_path / "m", runtime="genai"), lambda: bake(model.path, [], tmp_path / "b")):
        with pytest.raises(ModelError) as error:
            refused()
        assert str(error.value) == message
    assert not (tmp_path / "b").exists()


# What becomes of each entry of a VAE's configuration that diffusers knows. The graph is traced with most of them.
VAE_ENTRIES = {
    **dict.fromkeys(
        (
            "in_channels",
            "out_channels",
            "down_block_types",
            "up_block_types",
            "layers_per_block",
            "act_fn",
            "norm_num_groups",
            "use_quant_conv",
            "use_post_quant_conv",
            "mid_block_add_attention",
        ),
        "in the graph",
    ),
    "block_out_channels": "applied",  # vae_scale_factor
    "latent_channels": "applied",
    "scaling_factor": "applied",
    "shift_factor": "applied",
    "latents_mean": "applied",
    "latents_std": "applied",
    "sample_size": "only for tiles",
    "force_upcast": "only for fp16 in torch",  # the precision is a setting of the pipeline
}

# The entries of the configurations of whole pipelines that diffusers reads while it draws.
PIPELINE_ENTRIES = {
    "vae.block_out_channels": "applied",
    "vae.scaling_factor": "applied",
    "vae.latents_mean": "applied",
    "vae.latents_std": "applied",
    "vae.force_upcast": "only for fp16 in torch",
    "vae.latent_channels": "applied",
    "unet.sample_size": "applied",
    "unet.in_channels": "applied",
    "unet.addition_time_embed_dim": "only a check",
    "unet.time_cond_proj_dim": "refused by the live runtime",  # an input that it does not know
    "unet._diffusers_version": "only for files from before 2022",
    "text_encoder.use_attention_mask": "refused",
    "text_encoder_2.projection_dim": "only a check",
    "scheduler.num_train_timesteps": "applied",
    "scheduler.steps_offset": "applied",
    "scheduler.clip_sample": "applied",
    "scheduler.skip_prk_steps": "only for files from before 2022",
    "self.force_zeros_for_empty_prompt": "applied",
    "self.requires_aesthetics_score": "refused",
    "self.requires_safety_checker": "left out",  # the safety checker is not converted
}


def test_every_entry_of_a_vae_has_a_verdict() -> None:
    diffusers = pytest.importorskip("diffusers")
    assert set(inspect.signature(diffusers.AutoencoderKL.__init__).parameters) - {"self"} == VAE_ENTRIES.keys()


def test_every_entry_that_pipelines_read_has_a_verdict() -> None:
    """Read from the source of diffusers' pipelines, so that a new entry has to be looked at."""
    diffusers = pytest.importorskip("diffusers")
    names = ("StableDiffusion", "StableDiffusionXL")
    found: set[str] = set()
    for name in (f"{base}{kind}Pipeline" for base in names for kind in ("", "Img2Img", "Inpaint")):
        module = inspect.getmodule(getattr(diffusers, name))
        assert module is not None
        text = inspect.getsource(module)
        for part, entry in re.findall(r"\b(vae|unet|text_encoder|text_encoder_2|scheduler|self)\.config\.(\w+)", text):
            found.add(f"{part}.{entry}")
    found -= {"self.get", "unet.get", "unet.time_embedding_type"}  # a method, twice, and a word of a message
    assert found <= PIPELINE_ENTRIES.keys()
    assert {key for key in PIPELINE_ENTRIES if key.startswith("vae.")} <= found


@pytest.mark.parametrize(
    ("file", "entry", "message"),
    [
        (
            "model_index.json",
            {"requires_aesthetics_score": True},
            "requires_aesthetics_score in model_index.json is true, as in the SDXL refiner, which is not supported; "
            "give an SDXL base model",
        ),
        (
            "text_encoder/config.json",
            {"use_attention_mask": True},
            "use_attention_mask in text_encoder/config.json is true, which is not supported; give a model with CLIP's "
            "text encoder",
        ),
    ],
)
def test_entries_that_are_refused(folder: Path, file: str, entry: dict[str, Any], message: str) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | entry))
    with pytest.raises(ModelError) as error:
        ModelFolder(folder)
    assert str(error.value) == f"{folder}: {message}"

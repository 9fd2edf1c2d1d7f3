"""The adapter file of a training: its bytes, its metadata, the pictures that it draws, and what the check finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import TrainError
from lorablend.adapters.files.provenance import MADE_BY
from lorablend.engine import Pipeline
from lorablend.train.base import load_base
from lorablend.train.networks import attach
from lorablend.train.output import check_adapter, save_adapter
from lorablend.train.samples import Sampler
from tests.adapter_files import message_of
from tests.engine import reference
from tests.train.trained import ALGORITHMS, config, dataset, facts, pipeline_of, trained

pytest.importorskip("lycoris")

CAPTIONS = ("a fox, snow", "a cat, snow", "a fox")


@pytest.fixture(scope="module")
def sampler(sdxl_model: Path) -> Sampler:
    return Sampler(sdxl_model, ["a fox"], precision="f32")


def save(path: Path, network: Any, sampler: Sampler | None = None, **settings: Any) -> Path:
    data = dataset(*CAPTIONS, trigger="zxc")
    save_adapter(path, network, config(data=Path("/home/someone/pictures"), **settings), data, facts(), sampler)
    return path


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_engine_draws_what_was_trained(
    sdxl_source: Path, sdxl_model: Path, tmp_path: Path, sampler: Sampler, algorithm: str
) -> None:
    """diffusers with the trained modules in memory draws what the engine does with the file, to one level.

    The file's f16 loses nothing here, see `trained`.
    """
    models, network = trained(sdxl_source, algorithm=algorithm, text_encoder=True)
    file = save(tmp_path / "x.safetensors", network, sampler, algorithm=algorithm, text_encoder=True)
    latents = np.random.default_rng(42).standard_normal((1, 4, 8, 8), dtype=np.float32)
    pipeline = Pipeline(sdxl_model, precision="f32")
    ours = pipeline.generate("the fox", blend=[(str(file), 1.0)], latents=latents, steps=4, scheduler="euler")
    expected = reference.draw(pipeline_of(models), [], latents, steps=4, prompt="the fox", guidance_scale=5.0)
    assert reference.levels_apart(np.array(ours.images[0]), expected) <= 1
    base = pipeline.generate("the fox", latents=latents, steps=4, scheduler="euler")
    assert reference.levels_apart(np.array(base.images[0]), expected) > 5
    types = {tensor.dtype for name, tensor in load_adapter(file).file.tensors.items() if "lora_" in name[10:]}
    assert types <= {"F16"}


def test_same_training_same_bytes(sdxl_source: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    _, network = trained(sdxl_source)
    first = save(tmp_path / "ink.safetensors", network)
    second = save(tmp_path / "other" / "ink.safetensors", attach_again(sdxl_source, network))
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ink.safetensors", "other"]
    assert b"/home" not in first.read_bytes()
    assert str(tmp_path).encode() not in first.read_bytes()


def attach_again(source: Path, network: Any) -> Any:
    other = attach(load_base(str(source)), config(seed=9))
    other.load_state(network.state())
    return other


def test_metadata(sdxl_source: Path, tmp_path: Path) -> None:
    _, network = trained(sdxl_source)
    adapter = load_adapter(save(tmp_path / "ink.safetensors", network))
    entries = dict(adapter.metadata)
    assert list(entries) == sorted(entries)
    assert adapter.trigger_words == ["zxc"]
    assert json.loads(entries.pop("ss_tag_frequency")) == {
        "pictures": {"zxc": 3, "a fox": 2, "snow": 2, "a cat": 1}  # with the trigger, as in training
    }
    made_by = json.loads(entries.pop(MADE_BY))
    assert made_by["tool"] == "train"
    assert made_by["settings"]["data"] == "pictures"
    assert made_by["settings"]["model"] == "tiny"
    assert made_by["settings"]["caption_dropout"] == 0.05
    assert entries.pop("modelspec.hash_sha256") == f"0x{entries.pop('sshs_model_hash')}"
    assert entries == {
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.prediction_type": "epsilon",
        "modelspec.resolution": "64x64",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": "ink",
        "modelspec.trigger_phrase": "zxc",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_caption_dropout_rate": "0.05",
        "ss_dataset_dirs": '{"pictures": {"img_count": 3}}',
        "ss_enable_bucket": "True",
        "ss_gradient_accumulation_steps": "1",
        "ss_gradient_checkpointing": "False",
        "ss_learning_rate": "0.0001",
        "ss_lr_scheduler": "cosine",
        "ss_lr_warmup_steps": "2",
        "ss_max_grad_norm": "1.0",
        "ss_max_train_steps": "30",
        "ss_min_snr_gamma": "5.0",
        "ss_mixed_precision": "no",
        "ss_network_alpha": "6",
        "ss_network_dim": "4",
        "ss_network_module": "networks.lora",
        "ss_new_sd_model_hash": "ab" * 32,
        "ss_noise_offset": "0.0",
        "ss_num_train_images": "3",
        "ss_optimizer": "adamw",
        "ss_output_name": "ink",
        "ss_resolution": "(64, 64)",
        "ss_sd_model_name": "tiny",
        "ss_seed": "0",
        "ss_steps": "30",
        "ss_total_batch_size": "4",
        "ss_unet_lr": "0.0001",
        "ss_v2": "False",
    }


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("size", "dtype"), [(1e-5, "F32"), (1e-3, "F16"), (0.1, "F16")])
def test_rounding_stays_within_the_check(
    sdxl_source: Path, tmp_path: Path, algorithm: str, size: float, dtype: str
) -> None:
    """Numbers of a young training, which f16 would cut off, are stored as f32, so that `save_adapter` accepts them."""
    import torch

    network = attach(load_base(str(sdxl_source)), config(algorithm=algorithm))
    generator = torch.Generator().manual_seed(2)
    for group in network.parameters():
        for parameter in group["params"]:
            parameter.data += torch.randn(parameter.shape, generator=generator) * size
    tensors = load_adapter(save(tmp_path / "x.safetensors", network, algorithm=algorithm)).file.tensors
    factors = [tensor.dtype for name, tensor in tensors.items() if not name.endswith((".alpha", ".dora_scale"))]
    assert factors.count(dtype) > 0.95 * len(factors)  # LoKr has a few very small tensors, whose rounding varies
    assert all(tensor.dtype == "F32" for name, tensor in tensors.items() if name.endswith((".alpha", ".dora_scale")))


def test_a_file_that_is_not_what_was_trained(sdxl_source: Path, tmp_path: Path) -> None:
    _, network = trained(sdxl_source)
    file = save(tmp_path / "x.safetensors", network)
    check_adapter(file, network, "x")
    parameter = next(iter(network._named().values()))
    parameter.data *= 1.01
    message = message_of(TrainError, lambda: check_adapter(file, network, "x.safetensors"))
    assert message == (
        "x.safetensors: unet down_blocks.1.attentions.0.proj_in is off by 9.9e-03, more than the 0.001 that "
        "rounding explains; this is a fault of lorablend, please report it"
    )


def test_nan_is_found_before_anything_is_written(sdxl_source: Path, tmp_path: Path) -> None:
    _, network = trained(sdxl_source)
    next(iter(network._named().values())).data[0, 0] = np.nan
    assert message_of(TrainError, lambda: save(tmp_path / "x.safetensors", network)) == (
        "x.safetensors: tensor lora_unet_input_blocks_4_1_proj_in.lora_down.weight contains NaN or infinity; resume "
        "from an earlier checkpoint, with a lower learning rate"
    )
    assert not list(tmp_path.iterdir())


def test_an_adapter_that_changes_nothing_is_refused(sdxl_source: Path, tmp_path: Path, sampler: Sampler) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"the one before")
    network = attach(load_base(str(sdxl_source)), config())
    assert message_of(TrainError, lambda: save(path, network, sampler)) == (
        "x.safetensors does not change the picture: 30 steps at learning rate 0.0001 have taught it nothing; train "
        "longer or raise the learning rate"
    )
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]

"""Trainings of small models from end to end, compared with diffusers' own parts."""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import Cancelled
from lorablend.train import Progress
from lorablend.train.checkpoint import find_checkpoints, read_checkpoint
from lorablend.train.logs import read_log
from lorablend.train.noise import draw
from lorablend.train.run import prepare_run
from tests.train.data.data_files import save
from tests.train.trainings import STEPS, config_of


def test_train(settings: dict[str, Any], train: Any) -> None:
    """An adapter that works, samples, a log, checkpoints; the loss on fixed noise goes down by a fifth at least.

    LoCon: in a network of random numbers the convolutions are what can learn.
    """
    seen: list[Progress] = []
    said: list[str] = []
    config = config_of(
        settings,
        algorithm="locon",
        rank=8,
        steps=12,
        learning_rate=1e-2,
        sample_every=6,
        validation_fraction=0.2,
        keep=1,
    )
    before, there = _frozen_beside_the_unet(), set[int]()

    def progress(state: Progress) -> None:
        seen.append(state)
        there.update(_frozen_beside_the_unet() - before)

    result = train(config, progress=progress, say=said.append)
    assert not there  # not needed any more, so their memory is free

    adapter = load_adapter(config.out)
    assert adapter.base_model == "sdxl"
    assert {component for component, _ in adapter.deltas} == {"unet"}
    assert [progress.step for progress in seen] == list(range(1, 13))
    assert all(progress.eta >= 0 and progress.memory > 1e8 and progress.pictures_per_second > 0 for progress in seen)
    assert seen[0].learning_rate > seen[-1].learning_rate == 0  # cosine, warmed up
    assert np.isclose(result.loss, np.mean([progress.loss for progress in seen]))

    log = list(read_log(config.folder))
    first = next(line for line in log if "validation_loss/probe" in line)
    assert first["step"] == 0
    assert result.validation["probe"] < 0.8 * first["validation_loss/probe"]
    assert set(result.validation) == {"probe", "held out"}
    names = sorted(path.name for path in config.folder.iterdir() if path.is_file())
    assert names == [
        "config.toml",
        "ink-000006.safetensors",
        "ink-000012.safetensors",
        "log.jsonl",
        "samples-000006.png",
        "samples-000012.png",
        "step-00000012.checkpoint",
    ]
    assert any(line.startswith("12 steps of 2 pictures") for line in said)
    assert any(line.startswith("locon of rank 8: ") for line in said)
    (cost,) = (line for line in said if line.startswith("samples of step "))
    assert re.fullmatch(
        r"samples of step 6 took \d+ s, including the base model's own; 1 more will take about \d+ s in all; "
        "--sample-every draws fewer, 0 none",
        cost,
    )


def _frozen_beside_the_unet() -> set[int]:
    """The VAEs and text encoders in memory."""
    gc.collect()
    kinds = (AutoencoderKL, CLIPTextModel, CLIPTextModelWithProjection)
    return {id(one) for one in gc.get_objects() if type(one) in kinds}


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_loss_is_that_of_diffusers(settings: dict[str, Any], train: Any, prediction_type: str, tmp_path: Path) -> None:
    """The loss of the first step, computed with diffusers' pipeline, VAE and scheduler as in its training scripts.

    To 1e-4 relative: the same f32 operations in batches of another size.
    """
    from diffusers import DDPMScheduler, StableDiffusionXLPipeline

    source = tmp_path / "model"
    shutil.copytree(settings["model"], source)
    file = source / "scheduler" / "scheduler_config.json"
    file.write_text(file.read_text().replace('"epsilon"', f'"{prediction_type}"'))
    # one batch with all four square pictures, one of them as wide as 96 pixels, so that time ids differ
    data = tmp_path / "wide"
    for number in range(4):
        save(data / f"{number}.png", number, (160, 64 + 96 * (number > 0)), f"a fox, tag {number}")
    config = config_of(settings, model=str(source), data=data, batch=4, steps=1, buckets=False, caption_dropout=0.0)
    losses: list[float] = []
    with pytest.raises(Cancelled):  # before the picture that checks the file, for which no model is converted
        train(
            config_of(settings, model=str(source), data=data, batch=4, steps=2, buckets=False, caption_dropout=0.0),
            progress=lambda progress: losses.append(progress.loss) or False,
        )

    pipeline = StableDiffusionXLPipeline.from_pretrained(source)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    run = prepare_run(config.model_copy(update={"out": tmp_path / "other.safetensors"}))
    drawn = draw(0, 0, (4, 4, 8, 8), 1000)
    expected = 0.0
    order = _order_of(run)
    with torch.no_grad():
        for index, example in enumerate(order):
            crop = run.preflight.crops[example]
            image = Image.open(data / f"{example}.png").resize(crop.scaled, Image.Resampling.LANCZOS)
            box = (crop.left, crop.top, crop.left + 64, crop.top + 64)
            pixels = torch.from_numpy(np.asarray(image.crop(box), np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
            latents = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor
            hidden, _, pooled, _ = pipeline.encode_prompt(f"a fox, tag {example}", do_classifier_free_guidance=False)
            width, height = Image.open(data / f"{example}.png").size
            ids = torch.tensor([[height, width, crop.top, crop.left, 64, 64]], dtype=torch.float32)
            noise, steps = drawn.noise[index : index + 1], drawn.timesteps[index : index + 1]
            said = pipeline.unet(
                scheduler.add_noise(latents, noise, steps),
                steps,
                hidden,
                added_cond_kwargs={"text_embeds": pooled, "time_ids": ids},
            ).sample
            target = noise if prediction_type == "epsilon" else scheduler.get_velocity(latents, noise, steps)
            snr = (scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod))[steps].item()
            weight = min(snr, 5) / (snr if prediction_type == "epsilon" else snr + 1)
            expected += weight * torch.nn.functional.mse_loss(said, target).item() / 4
    assert losses[0] == pytest.approx(expected, rel=1e-4)


def _order_of(run: Any) -> list[int]:
    from lorablend.train.order import Order

    crops = run.preflight.crops
    order = Order(crops, [1] * 4, [1] * 4, batch=4, seed=0, flip=False, dropout=0.0)
    return [pick.example for pick in order.batch_at(0)]


def test_text_encoders_are_trained(settings: dict[str, Any], train: Any) -> None:
    config = config_of(settings, text_encoder=True, steps=2, text_encoder_learning_rate=1e-3, keys="diffusers")
    train(config)
    adapter = load_adapter(config.out)
    assert {component for component, _ in adapter.deltas} == {"unet", "text_encoder", "text_encoder_2"}
    for component in ("text_encoder", "text_encoder_2"):
        factors = [delta.factors() for (name, _), delta in adapter.deltas.items() if name == component]
        assert max(np.abs(pair[1]).max() for pair in factors if pair) > 0


def test_masked_parts_teach_nothing(settings: dict[str, Any], train: Any, tmp_path: Path) -> None:
    """If masks hide all of each picture, the loss is zero."""
    data = tmp_path / "masked"
    for number in range(2):
        save(data / f"{number}.png", number, (64, 64), "a fox")
        Image.new("L", (64, 64), 0).save(data / f"{number}-masklabel.png")
    losses: list[float] = []
    with pytest.raises(Cancelled):
        train(config_of(settings, data=data), progress=lambda progress: losses.append(progress.loss) or False)
    assert losses == [0.0]


def test_the_file_holds_no_local_path(settings: dict[str, Any], train: Any, pictures: Path) -> None:
    config = config_of(settings, steps=1)
    train(config)
    content = config.out.read_bytes()
    for path in (pictures.parent, Path(settings["model"]).parent, config.out.parent, Path(os.environ["HOME"])):
        assert str(path).encode() not in content


_ON_TWO = """
import os, sys
from pathlib import Path
from lorablend.train.config import load_config
from lorablend.train.run import prepare_run
from lorablend.train.plan import Machine
from lorablend.train.trainer import run_training

rank = int(os.environ["RANK"])  # the first one has memory for four pictures, and bf16
machine = Machine("cpu", f"CPU {rank}", (8_000_000_000, 52_000_000)[rank], rank == 0, processes=2)
run = prepare_run(load_config(Path(sys.argv[1]), {}), openvino=Path(sys.argv[2]), machine=machine)
run_training(run, lambda progress: None, print)
"""


@pytest.mark.slow
def test_two_processes(settings: dict[str, Any], sdxl_model: Path, train: Any, tmp_path: Path) -> None:
    """Two processes of one batch each learn what one process learns from two batches, as several GPUs do.

    Both take the plan of the one with less memory, which does not suffice for samples. To 2e-3 of the largest number:
    sums in another order, whose rounding AdamW's first steps enlarge.
    """
    (tmp_path / "one").mkdir()
    one = config_of(settings, batch=1, accumulation=4, out=tmp_path / "one" / "ink.safetensors", text_encoder=True)
    train(one)
    two = config_of(settings, batch=None, precision="auto", text_encoder=True)
    file, program = tmp_path / "train.toml", tmp_path / "program.py"
    file.write_text(two.to_toml(), encoding="utf-8")
    program.write_text(_ON_TWO)
    # what `accelerate launch --multi_gpu` runs; its own command starts only one process without a GPU
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    result = subprocess.run(
        [sys.executable, *launch, str(program), str(file), str(sdxl_model)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(f"{STEPS} steps of 4 pictures: 1 at once, 2 times before each step, on 2 devices") == 1
    assert result.stdout.count("CPU 1, f32; about ") == 1
    assert result.stdout.count("note: no samples, and no picture to check the file with: ") == 1
    states = [read_checkpoint(find_checkpoints(config.folder)[-1]).state["network"] for config in (one, two)]
    largest = max(values.abs().max().item() for values in states[0].values())
    for name, values in states[0].items():
        torch.testing.assert_close(states[1][name], values, atol=2e-3 * largest, rtol=0)

"""The trainer from end to end on small models: what it computes against diffusers' own parts, exact resume, and every
mishap on the way: a wrong folder, no captions, a damaged file, no numbers, a full disk, Ctrl-C."""

from __future__ import annotations

import gc
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError, Cancelled, DataError, ResourceError, TrainError
from lorablend.train import Progress, TrainConfig
from lorablend.train import train as lorablend_train
from lorablend.train.checkpoint import find_checkpoints, read_checkpoint, read_facts
from lorablend.train.logs import read_log
from lorablend.train.loop import prepare_run, resume_command
from lorablend.train.noise import draw
from tests.train.data_files import save

STEPS = 4


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of two shapes with captions."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(5):
        save(folder / f"{number}.png", number, (96, 64) if number == 3 else (64, 64), f"a fox, tag {number}, the snow")
    return folder


@pytest.fixture
def settings(pictures: Path, sdxl_source: Path, tmp_path: Path) -> dict[str, Any]:
    """Four steps of two pictures; no samples, for they take longest."""
    return {
        "data": pictures,
        "model": str(sdxl_source),
        "out": tmp_path / "ink.safetensors",
        "rank": 2,
        "steps": STEPS,
        "batch": 2,
        "learning_rate": 1e-3,
        "precision": "f32",
        "checkpoints": 2,
        "sample_every": 0,
    }


def _config(settings: dict[str, Any], **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate({**settings, **changes})


@pytest.fixture
def train(sdxl_model: Path) -> Any:
    """`lorablend.train.train` that need not convert the model."""
    return partial(lorablend_train, openvino=sdxl_model)


def _stop_at(step: int) -> Any:
    return lambda progress: progress.step < step


# What it computes


def test_train(settings: dict[str, Any], train: Any) -> None:
    """An adapter that works, samples, a log, checkpoints; the loss on fixed noise goes down by a fifth at least.

    LoCon: in a network of random numbers the convolutions are what can learn.
    """
    seen: list[Progress] = []
    said: list[str] = []
    config = _config(
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
    assert not there  # their work is done, their memory is free

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
        r"samples of step 6 took \d+ s, the base model's own included; 1 more will take about \d+ s together: "
        "--sample-every draws fewer, with 0 none",
        cost,
    )


def _frozen_beside_the_unet() -> set[int]:
    """The VAEs and text encoders in memory."""
    gc.collect()
    kinds = (AutoencoderKL, CLIPTextModel, CLIPTextModelWithProjection)
    return {id(one) for one in gc.get_objects() if type(one) in kinds}


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_loss_is_that_of_diffusers(settings: dict[str, Any], train: Any, prediction_type: str, tmp_path: Path) -> None:
    """Of the first step, put together from diffusers' pipeline, VAE and scheduler, as its training scripts do it.

    To 1e-4 relative: the same f32 operations in batches of another size.
    """
    from diffusers import DDPMScheduler, StableDiffusionXLPipeline

    source = tmp_path / "model"
    shutil.copytree(settings["model"], source)
    file = source / "scheduler" / "scheduler_config.json"
    file.write_text(file.read_text().replace('"epsilon"', f'"{prediction_type}"'))
    # one batch with all four square pictures, one of them as wide as 96 pixels, so that time ids are not all the same
    data = tmp_path / "wide"
    for number in range(4):
        save(data / f"{number}.png", number, (160, 64 + 96 * (number > 0)), f"a fox, tag {number}")
    config = _config(settings, model=str(source), data=data, batch=4, steps=1, buckets=False, caption_dropout=0.0)
    losses: list[float] = []
    with pytest.raises(Cancelled):  # without the picture that proves the file: the model is nowhere converted
        train(
            _config(settings, model=str(source), data=data, batch=4, steps=2, buckets=False, caption_dropout=0.0),
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
    config = _config(settings, text_encoder=True, steps=2, text_encoder_learning_rate=1e-3, keys="diffusers")
    train(config)
    adapter = load_adapter(config.out)
    assert {component for component, _ in adapter.deltas} == {"unet", "text_encoder", "text_encoder_2"}
    for component in ("text_encoder", "text_encoder_2"):
        factors = [delta.factors() for (name, _), delta in adapter.deltas.items() if name == component]
        assert max(np.abs(pair[1]).max() for pair in factors if pair) > 0


def test_masked_parts_teach_nothing(settings: dict[str, Any], train: Any, tmp_path: Path) -> None:
    """Where masks hide all of each picture, the loss is zero."""
    data = tmp_path / "masked"
    for number in range(2):
        save(data / f"{number}.png", number, (64, 64), "a fox")
        Image.new("L", (64, 64), 0).save(data / f"{number}-masklabel.png")
    losses: list[float] = []
    with pytest.raises(Cancelled):
        train(_config(settings, data=data), progress=lambda progress: losses.append(progress.loss) or False)
    assert losses == [0.0]


# Resume


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9, "flip": True, "shuffle_tags": True, "caption_dropout": 0.5, "noise_offset": 0.1},
        {"precision": "bf16", "accumulation": 2, "schedule": "constant", "gradient_checkpointing": True},
        {"algorithm": "lokr", "text_encoder": True, "validation_fraction": 0.2},
    ],
    ids=["everything", "bf16", "lokr"],
)
def test_resume_is_exact(settings: dict[str, Any], train: Any, changes: dict[str, Any], tmp_path: Path) -> None:
    """Stopped twice, at checkpoints and between them: the same file, byte for byte."""
    (tmp_path / "whole").mkdir()
    whole = _config(settings, **changes, out=tmp_path / "whole" / "ink.safetensors")
    result = train(whole)
    config = _config(settings, **changes)
    for resume, step in ((False, 1), (True, 3)):
        with pytest.raises(Cancelled) as caught:
            train(config, resume=resume, progress=_stop_at(step))
        assert str(caught.value) == (
            f"stopped after step {step} of {STEPS}; go on with: "
            f"lorablend train --config {config.folder / 'config.toml'} --resume"
        )
    again = train(config, resume=True)
    assert config.out.read_bytes() == whole.out.read_bytes()
    assert (again.loss, again.validation) == (result.loss, result.validation)
    logs = [
        [(line["step"], line.get("loss"), line.get("gradient_norm")) for line in read_log(one.folder) if "loss" in line]
        for one in (whole, config)
    ]
    assert logs[0] == logs[1]


def test_a_seed_is_a_training(settings: dict[str, Any], train: Any) -> None:
    """Another seed, other numbers: the test above would pass if nothing were drawn at all."""
    states = []
    for seed in (0, 1):
        config = _config(settings, seed=seed, out=settings["out"].with_name(f"{seed}.safetensors"))
        with pytest.raises(Cancelled):
            train(config, progress=_stop_at(1))
        states.append(read_checkpoint(find_checkpoints(config.folder)[-1]).state["network"])
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_wrong_resume(settings: dict[str, Any], train: Any, pictures: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    settings = {**settings, "data": data}
    config = _config(settings)
    with pytest.raises(TrainError) as caught:
        train(config, resume=True)
    assert str(caught.value) == f"{config.folder} holds no checkpoint to resume from; start without --resume"
    with pytest.raises(Cancelled):
        train(config, progress=_stop_at(1))

    def refused(changes: dict[str, Any], *, resume: bool = True) -> str:
        with pytest.raises(TrainError) as caught:
            prepare_run(_config(settings, **changes), resume=resume)
        return str(caught.value)

    again = "give that, or start again without --resume"
    undo = "put back what was there, or start again without --resume"
    assert refused({"rank": 8}) == f"rank is 8, the checkpoint has 2; {again}"
    assert refused({"ema": 0.9}) == f"ema is 0.9, the checkpoint has not given; {again}"
    assert refused({"steps": 9}) == f"steps is 9, the checkpoint has {STEPS}; {again}"
    assert refused({}, resume=False) == (
        f"{config.folder} holds a checkpoint of step 1 already; go on from it with --resume, or delete the folder"
    )
    prepare_run(_config(settings, keep=1, validation_prompts=("a fox",), checkpoints=1), resume=True)

    (data / "1.txt").write_text("a cat")
    message = refused({})
    assert message.startswith("1.png or its caption is ")
    assert message.endswith(f"; {undo}")
    save(data / "9.png", 9, caption="a fox")
    assert refused({}) == f"the data set has 6 pictures, the checkpoint 5; {undo}"
    config.out.touch()
    assert refused({}) == f"{config.out} is already there; choose another name or delete it"


# Mishaps: each is told in one line, and what was learnt is kept


def test_wrong_folder(settings: dict[str, Any], train: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        train(_config(settings, data=tmp_path / "nowhere", model="owner/model that is not asked for"))
    assert str(caught.value) == f"{tmp_path / 'nowhere'} does not exist; give a folder of pictures"


def test_no_captions(settings: dict[str, Any], train: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    save(data / "IMG_1.png")
    save(data / "IMG_2.png", 1)
    with pytest.raises(DataError) as caught:
        train(_config(settings, data=data, model="owner/model that is not asked for"))
    assert str(caught.value).endswith(
        "has a caption, and there is no trigger word; write name.txt beside name.png, or give a trigger"
    )


def test_one_damaged_picture(settings: dict[str, Any], train: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number in range(3):
        save(data / f"{number}.jpg", number, caption="a fox")
    whole = (data / "1.jpg").read_bytes()
    (data / "1.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError) as caught:
        train(_config(settings, data=data, model="owner/model that is not asked for"))
    assert str(caught.value).startswith("1.jpg ")
    assert "\n" not in str(caught.value)


def test_no_number(settings: dict[str, Any], train: Any) -> None:
    """A learning rate far too high: the pictures are named, and there are ways out, with a lower one.

    The same folder again where nothing was kept; else a resume, from a checkpoint whose next step has a number.
    """
    settings |= {"checkpoints": 1, "warmup": 0.0}
    config = _config(settings, learning_rate=1e30)
    with pytest.raises(TrainError) as caught:
        train(config)
    message = str(caught.value)
    assert re.fullmatch(
        r"step 2: the loss is \w+, with \d pictures?: .*\.png; there is no checkpoint before it; look at the "
        r"pictures, and start again with a learning_rate below 1e\+30",
        message,
    )
    with pytest.raises(Cancelled):
        train(_config(settings), progress=_stop_at(1))
    said: list[str] = []
    with pytest.raises(AdapterError):  # the numbers of step 2 are finite, but fit no adapter file
        train(config, resume=True, progress=_stop_at(2), say=said.append)
    assert "learning_rate is 1e+30 from step 2 on, before it was 0.001" in said
    assert [read_facts(path)[0] for path in find_checkpoints(config.folder)] == [1, 2]
    with pytest.raises(TrainError) as caught:
        train(config, resume=True)
    assert [read_facts(path)[0] for path in find_checkpoints(config.folder)] == [1]
    message = str(caught.value)
    assert message.startswith("step 3: the loss is ")
    assert message.endswith(
        "; the last checkpoint before it is of step 1; look at the pictures, and take a learning_rate below 1e+30; go "
        f"on with: {resume_command(config)} --learning-rate 5e+29"
    )
    said.clear()
    train(_config(settings, learning_rate=5e-4), resume=True, say=said.append)
    assert "resumed from step 1 of 4" in said
    assert "learning_rate is 0.0005 from step 2 on, before it was 0.001" in said
    rates = [line["learning_rate"] for line in read_log(config.folder) if "learning_rate" in line]
    cosine = [(1 + np.cos(np.pi * step / STEPS)) / 2 for step in range(1, STEPS + 1)]
    assert rates == pytest.approx([1e-3 * cosine[0], *(5e-4 * part for part in cosine[1:])])


def test_full_disk(settings: dict[str, Any], train: Any, tmp_path: Path) -> None:
    """The last good checkpoint is named and stays; with room again, the run goes on from it to the same end."""
    (tmp_path / "whole").mkdir()
    whole = _config(settings, out=tmp_path / "whole" / "ink.safetensors")
    train(whole)
    config = _config(settings)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(progress: Progress) -> None:
        if progress.step == STEPS // 2 + 1:  # after the first checkpoint
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))

    try:
        with pytest.raises(ResourceError) as caught:
            train(config, progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (good,) = find_checkpoints(config.folder)
    assert str(caught.value) == (
        f"the checkpoint of step {STEPS} could not be written to {config.folder}: file too large; the last good one is "
        f"{good}; make room, then resume"
    )
    train(config, resume=True)
    assert config.out.read_bytes() == whole.out.read_bytes()


def test_trouble_after_a_checkpoint(settings: dict[str, Any], train: Any) -> None:
    """Whatever the disk refused, the message says how to go on if this step's checkpoint is there."""
    config = _config(settings)
    taken = config.folder / "ink-000002.safetensors"
    taken.mkdir(parents=True)
    with pytest.raises(ResourceError) as caught:
        train(config)
    command = f"lorablend train --config {config.folder / 'config.toml'} --resume"
    assert str(caught.value) == (f"{taken} could not be written: Is a directory; step 2 is kept, go on with: {command}")
    taken.rmdir()
    assert train(config, resume=True).steps == STEPS


_PROGRAM = """
import sys
from pathlib import Path
from lorablend.adapters.errors import Cancelled
from lorablend.train import train
from lorablend.train.config import load_config

def tell(progress):
    print("step", progress.step, flush=True)
    sys.stdin.readline()

try:
    train(load_config(Path(sys.argv[1]), {}), progress=tell, openvino=Path(sys.argv[2]))
except Cancelled as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(settings: dict[str, Any], sdxl_model: Path, number: signal.Signals, tmp_path: Path) -> None:
    """The step ends, a checkpoint is written, the message says how to go on; samples are not waited for."""
    config = _config(settings, sample_every=1)
    file = tmp_path / "train.toml"
    file.write_text(config.to_toml(), encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(file), str(sdxl_model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "step 1\n"
        child.send_signal(number)  # while it waits for us, within the step
        _, error = child.communicate("\n", timeout=120)
    assert child.returncode == 1
    command = f"lorablend train --config {config.folder / 'config.toml'} --resume"
    assert error.splitlines()[-1] == f"stopped after step 1 of {STEPS}; go on with: {command}"
    (path,) = find_checkpoints(config.folder)
    assert read_facts(path)[0] == 1
    assert not config.out.exists()
    assert not list(config.folder.glob("samples-*"))


def test_no_room_on_the_disk(settings: dict[str, Any], sdxl_model: Path) -> None:
    """Known before anything is loaded."""
    config = _config(settings, keep=10**9)
    for openvino, start in (
        (sdxl_model, f"{config.folder}: checkpoints and adapters need about "),
        (None, f"{os.environ['LORABLEND_CACHE']}: sdxl_source as converted for samples needs about 0.0 GB of disk, "),
    ):
        with pytest.raises(ResourceError) as caught:
            prepare_run(config, openvino=openvino)
        assert str(caught.value).startswith(start)


def test_tags_in_prompts(settings: dict[str, Any]) -> None:
    with pytest.raises(TrainError) as caught:
        prepare_run(_config(settings, validation_prompts=("a fox", "a cat <lora:ink:0.8>")))
    assert str(caught.value) == (
        "validation_prompts has <lora:ink:0.8>; samples are drawn with the trained adapter alone, leave the tag out"
    )


def test_handlers_are_put_back(settings: dict[str, Any], train: Any) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Cancelled):
        train(_config(settings), progress=_stop_at(1))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_error_of_the_callers(settings: dict[str, Any], train: Any) -> None:
    """It goes through as it is, after a checkpoint."""

    def fail(progress: Progress) -> None:
        raise ZeroDivisionError

    config = _config(settings)
    with pytest.raises(ZeroDivisionError):
        train(config, progress=fail)
    assert len(find_checkpoints(config.folder)) == 1


def test_missing_prodigy(settings: dict[str, Any], train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prodigyopt", None)  # find_spec takes it for not installed, where it is too
    with pytest.raises(TrainError) as caught:
        train(_config(settings, optimizer="prodigy"))
    assert str(caught.value) == "optimizer prodigy needs prodigyopt; run: pip install prodigyopt"


def test_the_file_holds_no_local_path(settings: dict[str, Any], train: Any, pictures: Path) -> None:
    config = _config(settings, steps=1)
    train(config)
    content = config.out.read_bytes()
    for path in (pictures.parent, Path(settings["model"]).parent, config.out.parent, Path(os.environ["HOME"])):
        assert str(path).encode() not in content


_ON_TWO = """
import os, sys
from pathlib import Path
from lorablend.train.config import load_config
from lorablend.train.loop import prepare_run, resume_command
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
    one = _config(settings, batch=1, accumulation=4, out=tmp_path / "one" / "ink.safetensors", text_encoder=True)
    train(one)
    two = _config(settings, batch=None, precision="auto", text_encoder=True)
    file, program = tmp_path / "train.toml", tmp_path / "program.py"
    file.write_text(two.to_toml(), encoding="utf-8")
    program.write_text(_ON_TWO)
    # what `accelerate launch --multi_gpu` runs; its own command starts one process where there is no GPU
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
    assert result.stdout.count("note: no samples, and no picture that proves the file: ") == 1
    states = [read_checkpoint(find_checkpoints(config.folder)[-1]).state["network"] for config in (one, two)]
    largest = max(values.abs().max().item() for values in states[0].values())
    for name, values in states[0].items():
        torch.testing.assert_close(states[1][name], values, atol=2e-3 * largest, rtol=0)

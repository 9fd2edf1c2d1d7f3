"""Trainings that are stopped, refused or break off: each mishap is told in one line, what was learnt is kept, and a
resume is exact."""

from __future__ import annotations

import re
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lorablend.adapters.errors import AdapterError, Cancelled, DataError, ResourceError, TrainError
from lorablend.train import Progress
from lorablend.train.checkpoint import find_checkpoints, read_checkpoint, read_facts
from lorablend.train.logs import read_log
from lorablend.train.run import prepare_run, resume_command
from tests.train.data.data_files import save
from tests.train.trainings import STEPS, config_of, stop_at


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
    whole = config_of(settings, **changes, out=tmp_path / "whole" / "ink.safetensors")
    result = train(whole)
    config = config_of(settings, **changes)
    for resume, step in ((False, 1), (True, 3)):
        with pytest.raises(Cancelled) as caught:
            train(config, resume=resume, progress=stop_at(step))
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
    """A different seed gives different numbers; without this, the test above would pass if nothing were random."""
    states = []
    for seed in (0, 1):
        config = config_of(settings, seed=seed, out=settings["out"].with_name(f"{seed}.safetensors"))
        with pytest.raises(Cancelled):
            train(config, progress=stop_at(1))
        states.append(read_checkpoint(find_checkpoints(config.folder)[-1]).state["network"])
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_wrong_resume(settings: dict[str, Any], train: Any, pictures: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    settings = {**settings, "data": data}
    config = config_of(settings)
    with pytest.raises(TrainError) as caught:
        train(config, resume=True)
    assert str(caught.value) == f"{config.folder} has no checkpoint to resume from; start without --resume"
    with pytest.raises(Cancelled):
        train(config, progress=stop_at(1))

    def refused(changes: dict[str, Any], *, resume: bool = True) -> str:
        with pytest.raises(TrainError) as caught:
            prepare_run(config_of(settings, **changes), resume=resume)
        return str(caught.value)

    again = "give that, or start again without --resume"
    undo = "undo the change, or start again without --resume"
    assert refused({"rank": 8}) == f"rank is 8, the checkpoint has 2; {again}"
    assert refused({"ema": 0.9}) == f"ema is 0.9, the checkpoint has not given; {again}"
    assert refused({"steps": 9}) == f"steps is 9, the checkpoint has {STEPS}; {again}"
    assert refused({}, resume=False) == (
        f"{config.folder} has a checkpoint of step 1 already; continue from it with --resume, or delete the folder"
    )
    prepare_run(config_of(settings, keep=1, validation_prompts=("a fox",), checkpoints=1), resume=True)

    (data / "1.txt").write_text("a cat")
    message = refused({})
    assert message.startswith("1.png or its caption has changed: its hash is ")
    assert message.endswith(f"; {undo}")
    save(data / "9.png", 9, caption="a fox")
    assert refused({}) == f"the data set has 6 pictures, the checkpoint 5; {undo}"
    config.out.touch()
    assert refused({}) == f"{config.out} is already there; choose another name or delete it"


def test_wrong_folder(settings: dict[str, Any], train: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        train(config_of(settings, data=tmp_path / "nowhere", model="owner/model that is not asked for"))
    assert str(caught.value) == f"{tmp_path / 'nowhere'} does not exist; give a folder of pictures"


def test_no_captions(settings: dict[str, Any], train: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    save(data / "IMG_1.png")
    save(data / "IMG_2.png", 1)
    with pytest.raises(DataError) as caught:
        train(config_of(settings, data=data, model="owner/model that is not asked for"))
    assert str(caught.value).endswith(
        "has a caption, and there is no trigger word; write name.txt next to name.png, or give a trigger"
    )


def test_one_damaged_picture(settings: dict[str, Any], train: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number in range(3):
        save(data / f"{number}.jpg", number, caption="a fox")
    whole = (data / "1.jpg").read_bytes()
    (data / "1.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError) as caught:
        train(config_of(settings, data=data, model="owner/model that is not asked for"))
    assert str(caught.value).startswith("1.jpg ")
    assert "\n" not in str(caught.value)


def test_tags_in_prompts(settings: dict[str, Any]) -> None:
    with pytest.raises(TrainError) as caught:
        prepare_run(config_of(settings, validation_prompts=("a fox", "a cat <lora:ink:0.8>")))
    assert str(caught.value) == (
        "validation_prompts has <lora:ink:0.8>; samples are drawn with the trained adapter alone; leave the tag out"
    )


def test_missing_prodigy(settings: dict[str, Any], train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prodigyopt", None)  # find_spec then reports it as not installed, even if it is
    with pytest.raises(TrainError) as caught:
        train(config_of(settings, optimizer="prodigy"))
    assert str(caught.value) == "optimizer prodigy needs prodigyopt; run: pip install prodigyopt"


def test_no_number(settings: dict[str, Any], train: Any) -> None:
    """With a learning rate far too high, the message names the pictures, and a lower rate helps.

    The same folder again where nothing was kept; else a resume, from a checkpoint whose next step has a number.
    """
    settings |= {"checkpoints": 1, "warmup": 0.0}
    config = config_of(settings, learning_rate=1e30)
    with pytest.raises(TrainError) as caught:
        train(config)
    message = str(caught.value)
    assert re.fullmatch(
        r"step 2: the loss is \w+, with \d pictures?: .*\.png; there is no checkpoint before it; look at the "
        r"pictures, and start again with a learning_rate below 1e\+30",
        message,
    )
    with pytest.raises(Cancelled):
        train(config_of(settings), progress=stop_at(1))
    said: list[str] = []
    with pytest.raises(AdapterError):  # the numbers of step 2 are finite, but too large for an adapter file
        train(config, resume=True, progress=stop_at(2), say=said.append)
    assert "learning_rate is 1e+30 from step 2 on; it was 0.001 before" in said
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
    train(config_of(settings, learning_rate=5e-4), resume=True, say=said.append)
    assert "resumed from step 1 of 4" in said
    assert "learning_rate is 0.0005 from step 2 on; it was 0.001 before" in said
    rates = [line["learning_rate"] for line in read_log(config.folder) if "learning_rate" in line]
    cosine = [(1 + np.cos(np.pi * step / STEPS)) / 2 for step in range(1, STEPS + 1)]
    assert rates == pytest.approx([1e-3 * cosine[0], *(5e-4 * part for part in cosine[1:])])


def test_full_disk(settings: dict[str, Any], train: Any, tmp_path: Path) -> None:
    """The last good checkpoint stays and is named; with space again, the run resumes from it to the same end."""
    (tmp_path / "whole").mkdir()
    whole = config_of(settings, out=tmp_path / "whole" / "ink.safetensors")
    train(whole)
    config = config_of(settings)
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
        f"the checkpoint of step {STEPS} could not be written to {config.folder}: file too large; the newest one is "
        f"{good}; free up space, then resume"
    )
    train(config, resume=True)
    assert config.out.read_bytes() == whole.out.read_bytes()


def test_trouble_after_a_checkpoint(settings: dict[str, Any], train: Any) -> None:
    """Whichever file could not be written, the message says how to resume if this step's checkpoint exists."""
    config = config_of(settings)
    taken = config.folder / "ink-000002.safetensors"
    taken.mkdir(parents=True)
    with pytest.raises(ResourceError) as caught:
        train(config)
    command = f"lorablend train --config {config.folder / 'config.toml'} --resume"
    assert str(caught.value) == (f"{taken} could not be written: Is a directory; step 2 is kept; go on with: {command}")
    taken.rmdir()
    assert train(config, resume=True).steps == STEPS


def test_an_error_of_the_callers(settings: dict[str, Any], train: Any) -> None:
    """The exception is passed on unchanged, after a checkpoint."""

    def fail(progress: Progress) -> None:
        raise ZeroDivisionError

    config = config_of(settings)
    with pytest.raises(ZeroDivisionError):
        train(config, progress=fail)
    assert len(find_checkpoints(config.folder)) == 1

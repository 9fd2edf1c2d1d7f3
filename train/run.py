"""A training that has passed every check that is possible before anything heavy is loaded.

This module needs no torch, so that a missing extra, a wrong folder or an impossible resume is one line, at once.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorablend.adapters.blends.tags import TAG_START
from lorablend.adapters.errors import ResumeError, TrainError
from lorablend.adapters.wording import shown
from lorablend.convert import require_extra
from lorablend.shipped import model_dir
from lorablend.train.base import Base, find_base
from lorablend.train.chance import shuffled
from lorablend.train.checkpoint import find_checkpoints, read_facts
from lorablend.train.config import TrainConfig
from lorablend.train.data.examples import Example
from lorablend.train.data.layouts import DataSet, find_examples
from lorablend.train.duration import measure_speed
from lorablend.train.plan import Machine, TrainPlan, find_machine, make_plan
from lorablend.train.preflight import Preflight, check_captions, check_files, preflight
from lorablend.train.preflight_disk import check_disk

__all__ = ["RATES", "Progress", "Run", "prepare_run", "resume_command"]

# Settings that a resumed run may change, for no number of the network depends on them.
_FREE = {"data", "model", "out", "keys", "checkpoints", "keep", "sample_every", "validation_prompts"}

# Settings that a resumed run may change from its first step on: the way out after a loss that is not finite.
RATES = ("learning_rate", "text_encoder_learning_rate")


@dataclass(frozen=True)
class Progress:
    """The state of a training after a step.

    Attributes:
        step: The number of steps that are done, of `steps`.
        loss: Of this step.
        smoothed: The mean loss of about the last fifty steps.
        memory: Bytes that this process uses, on the GPU if there is one.
        eta: Seconds to the end.
    """

    step: int
    steps: int
    loss: float
    smoothed: float
    learning_rate: float
    pictures_per_second: float
    memory: int
    eta: float


@dataclass(frozen=True)
class Run:
    """A training that has passed all checks.

    Attributes:
        config: The settings, with every None replaced by the plan's choice.
        given: The settings as they were given.
        dataset: Without the held-out pictures.
        facts: Kept in checkpoints, for a resume to compare with its own.
        checkpoint: To continue from.
        openvino: As for `train`.
    """

    config: TrainConfig
    given: TrainConfig
    base: Base
    dataset: DataSet
    held_out: tuple[Example, ...]
    plan: TrainPlan
    preflight: Preflight
    facts: Mapping[str, Any]
    checkpoint: Path | None
    openvino: Path | None = None


def prepare_run(
    config: TrainConfig,
    *,
    resume: bool = False,
    openvino: Path | None = None,
    machine: Machine | None = None,
) -> Run:
    """Check everything, and make every choice that the configuration leaves open; load no model.

    Arguments and errors are those of `train`, and:

    Args:
        machine: None for this one.
    """
    require_extra("train")
    _check_optimizer(config)
    _check_prompts(config)
    _check_out(config, resume=resume)
    checkpoint, old_facts = _newest(config.folder) if resume else (None, {})
    dataset = find_examples(config.data, trigger=config.trigger, repeats=config.repeats)
    check_files(dataset)
    check_captions(dataset)
    trained, held_out = _hold_out(dataset, config)
    base = find_base(config.model)
    machine = machine or find_machine()
    plan = make_plan(config, base, len(trained), machine, old_facts.get("config"))
    dataset = replace(dataset, examples=trained)
    resolved = plan.resolve(config)
    facts = {
        "config": json.loads(resolved.model_dump_json(exclude=_FREE)),
        "data": _fingerprints(dataset, held_out),
        "base": {"name": base.name, "sha256": base.sha256},
        "processes": plan.processes,
    }
    if checkpoint:
        _check_same(facts, old_facts)
    if config.model == "demo":
        openvino = openvino or model_dir()
    check_disk(resolved, base, plan, (*trained, *held_out), openvino=openvino)
    return Run(
        config=resolved,
        given=config,
        base=base,
        dataset=dataset,
        held_out=held_out,
        plan=plan,
        preflight=preflight(dataset, resolved, base, plan, held_out=len(held_out), speed=measure_speed(plan.precision)),
        facts=facts,
        checkpoint=checkpoint,
        openvino=openvino,
    )


def resume_command(config: TrainConfig) -> str:
    """The command that resumes the training."""
    return f"lorablend train --config {shlex.quote(str(config.folder / 'config.toml'))} --resume"


def _check_optimizer(config: TrainConfig) -> None:
    from importlib.util import find_spec

    if config.optimizer == "prodigy" and find_spec("prodigyopt") is None:
        raise TrainError("optimizer prodigy needs prodigyopt; run: pip install prodigyopt")


def _check_prompts(config: TrainConfig) -> None:
    for prompt in config.validation_prompts:
        if tag := TAG_START.search(prompt):
            raise TrainError(
                f"validation_prompts has {shown(tag.group())}; samples are drawn with the trained adapter alone; leave "
                "the tag out"
            )


def _check_out(config: TrainConfig, *, resume: bool) -> None:
    if config.out.exists():
        raise TrainError(f"{shown(config.out)} is already there; choose another name or delete it")
    if not config.out.absolute().parent.is_dir():
        raise TrainError(f"{shown(config.out)}: there is no folder {shown(config.out.parent)}; create it first")
    checkpoints = find_checkpoints(config.folder)
    if checkpoints and not resume:
        raise TrainError(
            f"{shown(config.folder)} has a checkpoint of step {_step(checkpoints[-1])} already; continue from it with "
            "--resume, or delete the folder"
        )
    if resume and not checkpoints:
        raise TrainError(f"{shown(config.folder)} has no checkpoint to resume from; start without --resume")


def _newest(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = find_checkpoints(folder)[-1]
    return path, read_facts(path)[1]


def _step(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _hold_out(dataset: DataSet, config: TrainConfig) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Split the pictures into training and held-out ones, in their order; the choice depends on number and seed."""
    count = len(dataset.examples)
    if not config.validation_fraction:
        return dataset.examples, ()
    held = max(1, round(config.validation_fraction * count))
    if held >= count:
        raise TrainError(
            f"validation_fraction is {config.validation_fraction:g}, which leaves none of {count} "
            f"picture{'s' * (count > 1)} to train on; add pictures or give 0"
        )
    chosen = set(shuffled(range(count), config.seed, "held out")[:held])
    parts: tuple[list[Example], list[Example]] = ([], [])
    for index, example in enumerate(dataset.examples):
        parts[index in chosen].append(example)
    return tuple(parts[0]), tuple(parts[1])


def _fingerprints(dataset: DataSet, held_out: tuple[Example, ...]) -> dict[str, str]:
    """Map each picture's name to a hash of everything that training takes from it."""
    hashes: dict[str, str] = {}
    for kind, examples in (("", dataset.examples), (" held out", held_out)):
        for index, example in enumerate(examples):
            digest = hashlib.sha256(example.path.read_bytes())
            if example.mask:
                digest.update(example.mask.read_bytes())
            rest = [example.captions, example.repeats, example.trigger, example.mask == example.path, index, kind]
            digest.update(json.dumps(rest).encode())
            hashes[dataset.name(example.path)] = digest.hexdigest()[:24]
    return hashes


def _check_same(now: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    """Raise ResumeError for the first difference between a resumed run and the one that wrote the checkpoint."""
    again = "give that"
    for name in TrainConfig.model_fields:  # in this order: alpha follows from rank
        value, before = now["config"].get(name), old["config"].get(name)
        if value != before and name not in RATES:
            raise ResumeError(f"{name} is {_word(value)}, the checkpoint has {_word(before)}; {again}")
    if now["base"]["sha256"] != old["base"]["sha256"]:
        names = [f"{base['name']} ({base['sha256'][:12]})" for base in (now["base"], old["base"])]
        raise ResumeError(f"the model is {names[0]}, the checkpoint has {names[1]}; {again}")
    if now["processes"] != old["processes"]:
        raise ResumeError(f"processes are {now['processes']}, the checkpoint has {old['processes']}; {again}")
    data, before = now["data"], old["data"]
    undo = "undo the change"
    if len(data) != len(before):
        raise ResumeError(f"the data set has {len(data)} pictures, the checkpoint {len(before)}; {undo}")
    for name, digest in data.items():
        if name not in before:
            raise ResumeError(f"the data set has {name}, which is not in the checkpoint; {undo}")
        if digest != before[name]:
            raise ResumeError(
                f"{name} or its caption has changed: its hash is {digest[:8]}, in the checkpoint {before[name][:8]}; "
                f"{undo}"
            )


def _word(value: Any) -> str:
    return "not given" if value is None else str(value)

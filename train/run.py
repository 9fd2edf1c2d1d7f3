"""A training that is known to make sense: everything that can be checked before anything heavy is loaded.

This module needs no torch: a missing extra, a wrong folder or a resume that does not fit is one line, at once.
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


# What a resumed run may ask for anew, for no number of the network depends on it.
_FREE = {"data", "model", "out", "keys", "checkpoints", "keep", "sample_every", "validation_prompts"}


# And what it may change from its first step on: after a loss that is no number, that is the way out.
RATES = ("learning_rate", "text_encoder_learning_rate")


@dataclass(frozen=True)
class Progress:
    """After each step. step: done so far, of `steps`. loss: of this step, smoothed: of about the last fifty.

    memory: bytes that this process takes, on the GPU where there is one. eta: seconds to the end.
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
    """A training that is known to make sense. config: with nothing left open. dataset: without the held-out pictures.

    facts: what a checkpoint of it holds for a resume to compare. checkpoint: to go on from. openvino: as for `train`.
    """

    config: TrainConfig
    asked: TrainConfig
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
    """All checks, and every choice that the configuration leaves open; loads no model. machine: None is this one.

    The rest, and what is raised, as for `train`.
    """
    require_extra("train")
    _check_optimizer(config)
    _check_prompts(config)
    _check_out(config, resume=resume)
    checkpoint, kept = _newest(config.folder) if resume else (None, {})
    dataset = find_examples(config.data, trigger=config.trigger, repeats=config.repeats)
    check_files(dataset)
    check_captions(dataset)
    trained, held_out = _hold_out(dataset, config)
    base = find_base(config.model)
    machine = machine or find_machine()
    plan = make_plan(config, base, len(trained), machine, kept.get("config"))
    dataset = replace(dataset, examples=trained)
    resolved = plan.resolve(config)
    facts = {
        "config": json.loads(resolved.model_dump_json(exclude=_FREE)),
        "data": _fingerprints(dataset, held_out),
        "base": {"name": base.name, "sha256": base.sha256},
        "processes": plan.processes,
    }
    if checkpoint:
        _check_same(facts, kept)
    if config.model == "demo":
        openvino = openvino or model_dir()
    check_disk(resolved, base, plan, (*trained, *held_out), openvino=openvino)
    return Run(
        config=resolved,
        asked=config,
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
    """What to type to go on."""
    return f"lorablend train --config {shlex.quote(str(config.folder / 'config.toml'))} --resume"


def _check_optimizer(config: TrainConfig) -> None:
    from importlib.util import find_spec

    if config.optimizer == "prodigy" and find_spec("prodigyopt") is None:
        raise TrainError("optimizer prodigy needs prodigyopt; run: pip install prodigyopt")


def _check_prompts(config: TrainConfig) -> None:
    for prompt in config.validation_prompts:
        if tag := TAG_START.search(prompt):
            raise TrainError(
                f"validation_prompts has {shown(tag.group())}; samples are drawn with the trained adapter alone, leave "
                "the tag out"
            )


def _check_out(config: TrainConfig, *, resume: bool) -> None:
    if config.out.exists():
        raise TrainError(f"{shown(config.out)} is already there; choose another name or delete it")
    if not config.out.absolute().parent.is_dir():
        raise TrainError(f"{shown(config.out)}: there is no folder {shown(config.out.parent)}; make it first")
    found = find_checkpoints(config.folder)
    if found and not resume:
        raise TrainError(
            f"{shown(config.folder)} holds a checkpoint of step {_step(found[-1])} already; go on from it with "
            "--resume, or delete the folder"
        )
    if resume and not found:
        raise TrainError(f"{shown(config.folder)} holds no checkpoint to resume from; start without --resume")


def _newest(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = find_checkpoints(folder)[-1]
    return path, read_facts(path)[1]


def _step(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _hold_out(dataset: DataSet, config: TrainConfig) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Training pictures and held-out ones, both in their old order; the choice depends on names and the seed."""
    count = len(dataset.examples)
    if not config.validation_fraction:
        return dataset.examples, ()
    held = max(1, round(config.validation_fraction * count))
    if held >= count:
        raise TrainError(
            f"validation_fraction is {config.validation_fraction:g}, of {count} picture{'s' * (count > 1)} nothing is "
            "left to train on; add pictures or give 0"
        )
    chosen = set(shuffled(range(count), config.seed, "held out")[:held])
    parts: tuple[list[Example], list[Example]] = ([], [])
    for index, example in enumerate(dataset.examples):
        parts[index in chosen].append(example)
    return tuple(parts[0]), tuple(parts[1])


def _fingerprints(dataset: DataSet, held_out: tuple[Example, ...]) -> dict[str, str]:
    """A name for each picture -> a hash of all that training takes from it."""
    result: dict[str, str] = {}
    for kind, examples in (("", dataset.examples), (" held out", held_out)):
        for index, example in enumerate(examples):
            digest = hashlib.sha256(example.path.read_bytes())
            if example.mask:
                digest.update(example.mask.read_bytes())
            said = [example.captions, example.repeats, example.trigger, example.mask == example.path, index, kind]
            digest.update(json.dumps(said).encode())
            result[dataset.name(example.path)] = digest.hexdigest()[:24]
    return result


def _check_same(now: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
    """Raise ResumeError for the first thing in which a resumed run differs from the one that wrote the checkpoint."""
    again = "give that"
    for name in TrainConfig.model_fields:  # in this order: alpha follows from rank
        value, before = now["config"].get(name), kept["config"].get(name)
        if value != before and name not in RATES:
            raise ResumeError(f"{name} is {_word(value)}, the checkpoint has {_word(before)}; {again}")
    if now["base"]["sha256"] != kept["base"]["sha256"]:
        names = [f"{base['name']} ({base['sha256'][:12]})" for base in (now["base"], kept["base"])]
        raise ResumeError(f"the model is {names[0]}, the checkpoint has {names[1]}; {again}")
    if now["processes"] != kept["processes"]:
        raise ResumeError(f"processes are {now['processes']}, the checkpoint has {kept['processes']}; {again}")
    data, before = now["data"], kept["data"]
    undo = "put back what was there"
    if len(data) != len(before):
        raise ResumeError(f"the data set has {len(data)} pictures, the checkpoint {len(before)}; {undo}")
    for name, digest in data.items():
        if name not in before:
            raise ResumeError(f"the data set has {name}, which the checkpoint has not; {undo}")
        if digest != before[name]:
            raise ResumeError(
                f"{name} or its caption is {digest[:8]} by its hash, the checkpoint has {before[name][:8]}; {undo}"
            )


def _word(value: Any) -> str:
    return "not given" if value is None else str(value)

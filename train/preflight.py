"""A summary of what a training will do with its pictures, before any model is loaded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from lorablend.adapters.errors import DataError
from lorablend.adapters.wording import listed, shown
from lorablend.train.data.buckets import Crop, assign, bucket_step
from lorablend.train.data.examples import Example
from lorablend.train.data.layouts import DataSet
from lorablend.train.duration import SPREAD, Speed, estimate_seconds

if TYPE_CHECKING:
    from lorablend.train.base import Base
    from lorablend.train.config import TrainConfig
    from lorablend.train.plan import TrainPlan

__all__ = ["Preflight", "check_captions", "check_files", "duration", "preflight"]


@dataclass(frozen=True)
class Preflight:
    """What a training will do.

    Attributes:
        lines: The summary, for people.
        steps: Optimizer steps.
        crops: One per example.
        buckets: Number of pictures by (width, height).
        batches_per_epoch: Micro-batches, including partial ones.
        epochs: How often each picture is seen, its repeats counted as one epoch.
        memory: Bytes, an estimate.
        seconds: An estimate; None if no speed is known.
    """

    lines: tuple[str, ...]
    steps: int
    crops: tuple[Crop, ...]
    buckets: Mapping[tuple[int, int], int]
    batches_per_epoch: int
    epochs: float
    memory: int
    seconds: float | None


def check_files(dataset: DataSet) -> None:
    """Raise DataError, one line with all problems, if anything in the data set has to be fixed."""
    if not dataset.problems:
        return
    if len(dataset.problems) == 1:
        raise DataError(dataset.problems[0])
    raise DataError(f"{len(dataset.problems)} problems in {shown(dataset.root)}: {' | '.join(dataset.problems)}")


def check_captions(dataset: DataSet) -> None:
    """Raise DataError if no picture has a caption and there is no trigger word either."""
    if not any(example.captions or example.trigger for example in dataset.examples):
        raise DataError(
            f"none of the {len(dataset.examples)} pictures in {shown(dataset.root)} has a caption, and there is no "
            "trigger word; write name.txt next to name.png, or give a trigger"
        )


def preflight(
    dataset: DataSet,
    config: TrainConfig,
    base: Base,
    plan: TrainPlan,
    *,
    held_out: int = 0,
    speed: Speed | None = None,
) -> Preflight:
    """Summarize a training.

    Args:
        dataset: The pictures to train on.
        held_out: The number of pictures that are held out, to measure the loss with.
        speed: The machine's, see `duration.measure_speed`; None if it is unknown, which leaves out the time.

    Raises:
        DataError: The data set has problems, or neither captions nor a trigger.
    """
    check_files(dataset)
    check_captions(dataset)
    examples = dataset.examples
    step = bucket_step(base.unit, plan.resolution)
    crops = assign([example.size for example in examples], plan.resolution, step, buckets=config.buckets)
    per_epoch: Counter[tuple[int, int]] = Counter()
    for example, crop in zip(examples, crops, strict=True):
        per_epoch[crop.bucket] += example.repeats
    batches = sum(ceil(count / plan.batch) for count in per_epoch.values())
    partial = sum(count % plan.batch > 0 for count in per_epoch.values())
    buckets = dict(sorted(Counter(crop.bucket for crop in crops).items()))
    epochs = plan.steps * plan.accumulation * plan.processes / batches
    per_pass = sum(per_epoch.values())
    seconds = speed and estimate_seconds(
        config, base, plan, mean_batch=per_pass / batches, held_out=held_out, speed=speed
    )

    lines = [dataset.layout]
    lines += [f"note: {note}" for note in dataset.notes]
    lines += _folders(dataset)
    if held_out:
        lines.append(f"held out for the validation loss: {_many(held_out, 'more picture')}")
    lines.append(_captions(examples))
    if dataset.trigger:
        lines.append(f"trigger: {dataset.trigger}")
    shapes = ", ".join(f"{width}×{height}: {count}" for (width, height), count in buckets.items())
    lines.append(f"buckets: {shapes}")
    enlarged = [dataset.name(e.path) for e, crop in zip(examples, crops, strict=True) if crop.enlarged]
    if enlarged:
        lines.append(f"note: {listed(enlarged, 'picture')} smaller than the bucket, enlarged")
    few = f", {partial} of them not full" if partial else ""
    lines.append(
        f"an epoch: {_many(per_pass, 'picture')} with repeats, {_many(batches, 'batch', 'batches')} of "
        f"{plan.batch}{few}; mean batch {per_pass / batches:.1f}"
    )
    lines.append(f"training: {_many(plan.steps, 'step')}, {epochs:.1f} epochs")
    lines += list(plan.lines())
    if seconds is not None:
        shortest, longest = duration(seconds / SPREAD), duration(seconds * SPREAD)
        lines.append(f"time: about {duration(seconds)} after preparation, between {shortest} and {longest}")
    return Preflight(tuple(lines), plan.steps, crops, buckets, batches, epochs, plan.memory, seconds)


def _folders(dataset: DataSet) -> list[str]:
    """Describe each folder in a line: pictures and repeats."""
    folders: dict[Path, list[Example]] = defaultdict(list)
    for example in dataset.examples:
        folders[example.path.parent].append(example)
    lines: list[str] = []
    for folder, inside in sorted(folders.items()):
        name = dataset.name(folder)
        repeats = sorted({example.repeats for example in inside})
        times = f" × {' or '.join(map(str, repeats))}" if repeats != [1] else ""
        lines.append(f"folder {'itself' if name == '.' else name}: {_many(len(inside), 'picture')}{times}")
    return lines


def _captions(examples: tuple[Example, ...]) -> str:
    captioned = [example for example in examples if example.captions]
    alternatives = sum(len(example.captions) for example in captioned)
    text = f"captions: {len(captioned)} of {_many(len(examples), 'picture')}"
    if alternatives > len(captioned):
        text += f", {alternatives} texts"
    return text + (f'; such as "{shown(captioned[0].captions[0])}"' if captioned else "")


def _many(number: int, unit: str, plural: str | None = None) -> str:
    return f"{number:,} {unit if number == 1 else plural or unit + 's'}"


def duration(seconds: float) -> str:
    """Write a duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"

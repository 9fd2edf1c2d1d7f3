"""What a training will do with its pictures, said before any model is loaded; what cannot be trained is refused."""

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
    """lines: for people. steps: of the optimizer. crops: one per example. buckets: (width, height) -> pictures.

    batches_per_epoch: micro-batches, partial ones too. epochs: how often each picture is seen, repeats counted as one
    epoch. memory: bytes, an estimate. seconds: an estimate, None where no speed is known.
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
    """Raise DataError, one line with every name, where something in the data set has to be mended."""
    if not dataset.problems:
        return
    if len(dataset.problems) == 1:
        raise DataError(dataset.problems[0])
    raise DataError(f"{len(dataset.problems)} problems in {shown(dataset.root)}: {' | '.join(dataset.problems)}")


def check_captions(dataset: DataSet) -> None:
    """Raise DataError where no picture has a caption and there is no trigger word either."""
    if not any(example.captions or example.trigger for example in dataset.examples):
        raise DataError(
            f"none of the {len(dataset.examples)} pictures in {shown(dataset.root)} has a caption, and there is no "
            "trigger word; write name.txt beside name.png, or give a trigger"
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
    """What will be trained: `dataset`, beside which `held_out` pictures are kept to measure with.

    speed: the machine's, as `duration.measure_speed` has it; None: it is not known, and no time is told. Raises
    DataError for a data set with problems, or with no captions and no trigger.
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
    seen = sum(per_epoch.values())
    seconds = speed and estimate_seconds(config, base, plan, mean_batch=seen / batches, held_out=held_out, speed=speed)

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
        f"an epoch: {_many(seen, 'picture')} with repeats, {_many(batches, 'batch', 'batches')} of {plan.batch}{few}; "
        f"mean batch {seen / batches:.1f}"
    )
    lines.append(f"training: {_many(plan.steps, 'step')}, {epochs:.1f} epochs")
    lines += list(plan.lines())
    if seconds is not None:
        shortest, longest = duration(seconds / SPREAD), duration(seconds * SPREAD)
        lines.append(f"time: about {duration(seconds)} once all is ready, between {shortest} and {longest}")
    return Preflight(tuple(lines), plan.steps, crops, buckets, batches, epochs, plan.memory, seconds)


def _folders(dataset: DataSet) -> list[str]:
    """A line per folder: pictures and repeats."""
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
    having = [example for example in examples if example.captions]
    alternatives = sum(len(example.captions) for example in having)
    text = f"captions: {len(having)} of {_many(len(examples), 'picture')}"
    if alternatives > len(having):
        text += f", {alternatives} texts"
    return text + (f'; such as "{shown(having[0].captions[0])}"' if having else "")


def _many(number: int, unit: str, plural: str | None = None) -> str:
    return f"{number:,} {unit if number == 1 else plural or unit + 's'}"


def duration(seconds: float) -> str:
    """For people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"

"""`train`: everything that can be known is checked before anything heavy is loaded; then the steps, then the file.

This module needs no torch: a missing extra, a wrong folder or a wrong resume is one line, at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lorablend.train.config import TrainConfig
from lorablend.train.run import Progress, prepare_run

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True)
class TrainResult:
    """out: the adapter. folder: its checkpoints, samples and log. loss: smoothed, at the end. validation: loss on fixed
    noise of a "probe" of the training pictures, and of those "held out" if any. seconds: of this run."""

    out: Path
    folder: Path
    steps: int
    loss: float
    validation: Mapping[str, float]
    seconds: float


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    progress: Callable[[Progress], bool | None] | None = None,
    say: Callable[[str], None] | None = None,
    openvino: Path | None = None,
) -> TrainResult:
    """Train an adapter and write it to `config.out`; checkpoints, samples and a log go to `config.folder`.

    resume: go on from the newest checkpoint there. The file is then the same, byte for byte on a CPU, as that of a run
    that was never stopped; unless another learning rate is asked for, which holds from there on. progress: called after
    every step; False stops the work. say: gets what was understood and chosen, in lines for people. openvino: the base
    model as an OpenVINO folder, to draw samples with; None converts it once and keeps it in the cache.

    The first Ctrl-C (SIGINT) or SIGTERM lets the step end and writes a checkpoint; a second one ends at once.

    Raises:
        DataError: the pictures cannot be trained on.
        ModelError: the model is incomplete or of the wrong kind.
        TrainError: a setting makes no sense, the resume does not fit, the loss is no number, nothing was learnt.
        ResourceError: memory or disk does not suffice.
        MissingExtraError: lorablend[train] is not installed.
        Cancelled: stopped by a signal or by `progress`; the message names the command that resumes.
    """
    started = time.monotonic()
    run = prepare_run(config, resume=resume, openvino=openvino)
    from lorablend.train.trainer import run_training  # torch

    loss, validation = run_training(run, progress or (lambda _: None), say or (lambda _: None))
    seconds = time.monotonic() - started
    return TrainResult(config.out, config.folder, run.plan.steps, loss, validation, seconds)

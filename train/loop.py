"""`train`: check everything that can be checked before anything heavy is loaded; then take the steps, write the file.

This module needs no torch, so that a missing extra, a wrong folder or an impossible resume is one line, at once.
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
    """What came of a training.

    Attributes:
        out: The adapter.
        folder: Its checkpoints, samples and log.
        loss: The smoothed loss at the end.
        validation: The loss on fixed noise for a "probe" of the training pictures, and for the "held out" ones, if any.
        seconds: The duration of this run.
    """

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

    The first Ctrl-C (SIGINT) or SIGTERM finishes the current step and writes a checkpoint; a second one ends at once.

    Args:
        resume: Continue from the newest checkpoint in `config.folder`. On a CPU the file is then byte for byte the one
            of a training without a break, unless a different learning rate is given, which applies from there on.
        progress: Called after every step; False stops the training.
        say: Called with lines for people: what was recognized and chosen.
        openvino: The base model as an OpenVINO folder, to draw samples with; None converts it once and caches it.

    Raises:
        DataError: The pictures cannot be trained on.
        ModelError: The model is incomplete or of the wrong kind.
        TrainError: A setting is wrong, the checkpoint is of another training, the loss is not finite, or the adapter
            changes nothing.
        ResourceError: Memory or disk space does not suffice.
        MissingExtraError: lorablend[train] is not installed.
        Cancelled: A signal or `progress` stopped the training; the message names the command that resumes it.
    """
    started = time.monotonic()
    run = prepare_run(config, resume=resume, openvino=openvino)
    from lorablend.train.trainer import run_training  # torch

    loss, validation = run_training(run, progress or (lambda _: None), say or (lambda _: None))
    seconds = time.monotonic() - started
    return TrainResult(config.out, config.folder, run.plan.steps, loss, validation, seconds)

"""What changes during a training, and how it gets to the disk and back: checkpoints, and the adapter at a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel

from lorablend.train.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from lorablend.train.networks import Network
from lorablend.train.output import TrainingFacts, save_adapter
from lorablend.train.run import RATES, Run
from lorablend.train.samples import Sampler

__all__ = ["TrainingState"]

_SMOOTH = 50  # steps


class TrainingState:
    """Network, optimizer, learning rate, average and loss of a training, after `step` steps.

    Attributes:
        parameters: Everything that is trained.
        smoothed: The mean loss of about the last fifty steps.
        saved: The step of the newest checkpoint of this run; -1 before the first.
    """

    def __init__(
        self, run: Run, network: Network, parameters: list[torch.nn.Parameter], optimizer: Any, schedule: Any
    ) -> None:
        self._run, self._network, self._optimizer, self._schedule = run, network, optimizer, schedule
        self.parameters = parameters
        self._average = EMAModel(parameters, decay=run.config.ema) if run.config.ema else None
        if self._average:
            self._average.to(parameters[0].device)
        self.step, self.smoothed, self.saved = 0, 0.0, -1

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step; for Prodigy times its own estimate."""
        group = self._optimizer.param_groups[0]
        return float(group["lr"] * group.get("d", 1.0))

    def advance(self) -> None:
        """Take one step along the gradients, and forget them."""
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._average:
            self._average.step(self.parameters)

    def count(self, loss: float) -> None:
        """Count the step that was taken. The smoothed loss is a mean over the first steps, and later forgets them."""
        self.step += 1
        share = max(1 / self.step, 1 / _SMOOTH)
        self.smoothed = self.smoothed + share * (loss - self.smoothed)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights, if there are any, into the network for the length of the block."""
        if self._average is None:
            yield
            return
        self._average.store(self.parameters)
        self._average.copy_to(self.parameters)
        try:
            yield
        finally:
            self._average.restore(self.parameters)

    @property
    def adapter_file(self) -> Path:
        """The adapter at this step, next to the checkpoints."""
        config = self._run.config
        return config.folder / f"{config.out.stem}-{self.step:06}.safetensors"

    def save_adapter(self, path: Path, sampler: Sampler | None = None) -> None:
        """Write the adapter, averaged if there is an average; see `output.save_adapter`."""
        run, plan = self._run, self._run.plan
        facts = TrainingFacts(
            base_name=run.base.name,
            base_sha256=run.base.sha256,
            prediction_type=run.base.prediction_type,
            resolution=plan.resolution,
            steps=self.step,
            total_steps=plan.steps,
            warmup_steps=plan.warmup_steps,
            pictures=len(run.dataset.examples),
            batch=plan.batch * plan.accumulation * plan.processes,
            accumulation=plan.accumulation,
            precision=plan.precision,
            gradient_checkpointing=plan.gradient_checkpointing,
        )
        with self.averaged():
            save_adapter(path, self._network, run.config, run.dataset, facts, sampler)

    def save(self) -> None:
        """Write a checkpoint and the adapter at this step, unless they are written already."""
        if self.saved == self.step:
            return
        self.saved = self.step
        state = {
            "network": self._network.state(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "average": self._average.state_dict() if self._average else None,
            "smoothed": self.smoothed,
        }
        checkpoint = Checkpoint(self.step, self._run.facts, state)
        write_checkpoint(self._run.config.folder, checkpoint, keep=self._run.config.keep)
        self.save_adapter(self.adapter_file)

    def restore(self, path: Path, say: Callable[[str], None]) -> None:
        """Continue from a checkpoint. Learning rates may differ from its own; `say` gets a line for each."""
        checkpoint = read_checkpoint(path)
        state = checkpoint.state
        self._network.load_state(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        rates = [float(rate) for rate in self._schedule.base_lrs]
        self._schedule.load_state_dict(state["schedule"])
        if rates != self._schedule.base_lrs:
            for group, rate, before in zip(self._optimizer.param_groups, rates, self._schedule.base_lrs, strict=True):
                group.update(lr=group["lr"] * rate / before, initial_lr=rate)
            self._schedule.base_lrs = rates
        for name in RATES:
            rate, before = getattr(self._run.config, name), checkpoint.facts["config"][name]
            if rate != before:
                say(f"{name} is {rate:g} from step {checkpoint.step + 1} on; it was {before:g} before")
        if self._average:
            self._average.load_state_dict(state["average"])
            self._average.to(self.parameters[0].device)  # it took the checkpoint's own tensors
        self.step, self.smoothed, self.saved = checkpoint.step, state["smoothed"], checkpoint.step

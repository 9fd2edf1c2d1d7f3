"""The steps of a training, on torch, peft, diffusers and accelerate.

Step s (from 0) takes, on process r of W, the batches (s·A + a)·W + r of `order.Order` for a in 0 .. A - 1, and draws
noise for the same places: everything random is a function of the seed and the place, so that a resumed training needs
no generators.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from diffusers.optimization import get_scheduler

from lorablend.adapters.errors import Cancelled, LorablendError, ResourceError, TrainError
from lorablend.adapters.wording import listed
from lorablend.train.base import BaseNetworks, load_base
from lorablend.train.batches import Batch, Data
from lorablend.train.chance import shuffled
from lorablend.train.checkpoint import find_checkpoints, read_facts
from lorablend.train.duration import HELD_OUT, PROBE, TIMESTEPS
from lorablend.train.logs import RunLog
from lorablend.train.networks import attach
from lorablend.train.noise import NoiseDraw, TrainingNoise, draw, fixed_draw
from lorablend.train.order import Pick
from lorablend.train.pace import Pace
from lorablend.train.preflight import duration
from lorablend.train.run import Progress, Run, resume_command
from lorablend.train.samples import Sampler, choose_prompts, convert_base
from lorablend.train.signals import stop_signals
from lorablend.train.state import TrainingState
from lorablend.train.trainee import Trainee, make_optimizer

__all__ = ["run_training"]

_PATIENCE = timedelta(days=1)

Report = Callable[[Progress], bool | None]
Say = Callable[[str], None]


def run_training(run: Run, progress: Report, say: Say) -> tuple[float, Mapping[str, float]]:
    """Train to the end, from the run's checkpoint or from the start.

    Returns:
        The smoothed loss, and the losses on fixed noise by the name of the group of pictures.
    """
    AcceleratorState._reset_state()  # another training in this process may have had another precision
    on_cpu = not torch.cuda.is_available()
    # By default the other processes give up after ten minutes; converting the model, or drawing, may take longer.
    PartialState(cpu=on_cpu, timeout=_PATIENCE)
    # Each process has planned for its own device; all follow the plan for the one with the least memory.
    run = min(gather_object([run]), key=lambda candidate: candidate.plan.free)
    config, plan = run.config, run.plan
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision="bf16" if plan.precision == "bf16" else "no",
        gradient_accumulation_steps=plan.accumulation,
        # the last layers of the first text encoder are not used, so they get no gradient
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=config.text_encoder)],
    )
    if not accelerator.is_main_process:
        say, progress = _ignore, _ignore
    for line in run.preflight.lines:
        say(line)
    folder = None
    if accelerator.is_main_process and plan.draws:
        folder = run.openvino or convert_base(run.base, say)
    accelerator.wait_for_everyone()
    dtype = torch.bfloat16 if plan.precision == "bf16" else torch.float32
    text_dtype = dtype if config.text_encoder else torch.float32  # the cache holds exact embeddings
    models = load_base(run.base, dtype=dtype, text_dtype=text_dtype)
    data = Data(run, models, accelerator, say)
    if not config.text_encoder:
        models = replace(models, text_encoders=())  # not needed any more: their memory goes to the UNet
    with stop_signals() as stop:
        trainer = _Trainer(run, models, accelerator, data, folder, stop, say)
        del models  # frees the VAE's memory too
        return trainer.run(progress)


class _Trainer:
    def __init__(
        self,
        run: Run,
        models: BaseNetworks,
        accelerator: Accelerator,
        data: Data,
        openvino: Path | None,
        stop: Callable[[], bool],
        say: Say,
    ) -> None:
        self._run, self._accelerator, self._data, self._stop, self._say = run, accelerator, data, stop, say
        config, plan = run.config, run.plan
        self._noise = TrainingNoise(run.base.scheduler)
        network = attach(models, config)
        self._trainee = Trainee(models).train()
        if plan.gradient_checkpointing:
            models.unet.enable_gradient_checkpointing()
            for encoder in models.text_encoders:
                encoder.gradient_checkpointing_enable()
        groups = network.parameters()
        parameters: list[torch.nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
        optimizer = make_optimizer(config, groups)
        # One of our steps is one of the schedule's, whatever the number of devices; accelerate's wrapper counts each.
        schedule = get_scheduler(
            {"cosine": "cosine", "constant": "constant_with_warmup"}[config.schedule],
            optimizer,
            num_warmup_steps=plan.warmup_steps,
            num_training_steps=plan.steps,
        )
        self._wrapped, optimizer = accelerator.prepare(self._trainee, optimizer)
        self._state = TrainingState(run, network, parameters, optimizer, schedule)
        self._sampler = None
        if openvino:
            prompts = choose_prompts(config, run.dataset)
            self._sampler = Sampler(openvino, prompts, size=plan.resolution, seed=config.seed, stop=stop)
        self._grids = 0  # sheets of samples that this process has drawn
        if run.checkpoint:
            self._state.restore(run.checkpoint, say)
            say(f"resumed from step {self._state.step} of {plan.steps}")
        say(f"{config.algorithm} of rank {config.rank}: {network.parameter_count:,} numbers to train")

    def run(self, progress: Report) -> tuple[float, Mapping[str, float]]:
        config, state, log = self._run.config, self._state, None
        if self._accelerator.is_main_process:
            config.folder.mkdir(exist_ok=True)
            (config.folder / "config.toml").write_text(self._run.given.to_toml(), encoding="utf-8")
            log = RunLog(config.folder, state.step)
        try:
            validation = self._steps(progress, log)
            if log:
                state.save_adapter(config.out, self._sampler)
        except Cancelled as error:  # between two steps, or while the last picture was drawn
            raise Cancelled(
                f"stopped after step {state.step} of {self._run.plan.steps}", command=resume_command(config)
            ) from error
        except ResourceError as error:
            kept, command = self._rescue()
            raise ResourceError(f"{error}{kept}", command=command) from error
        except torch.OutOfMemoryError as error:
            kept, command = self._rescue()
            raise ResourceError(
                f"step {state.step + 1}: {self._run.plan.device} ran out of memory{kept}; free some, or start again "
                f"with batch {max(1, self._run.plan.batch // 2)}, gradient_checkpointing or a lower resolution",
                command=command,
            ) from error
        finally:
            if log:
                log.close()
        self._accelerator.wait_for_everyone()
        return state.smoothed, validation

    def _steps(self, progress: Report, log: RunLog | None) -> Mapping[str, float]:
        """Take all the steps that remain, and return the losses on fixed noise at the end."""
        plan, state = self._run.plan, self._state
        validation = self._validate(log) if state.step in (0, plan.steps) else {}
        pace = Pace(state.step, plan.steps)
        while state.step < plan.steps:
            loss, norm, pictures = self._one_step()
            state.count(loss)
            report = Progress(
                step=state.step,
                steps=plan.steps,
                loss=loss,
                smoothed=state.smoothed,
                learning_rate=state.learning_rate,
                pictures_per_second=pace.add(pictures),
                memory=_memory(self._accelerator.device),
                eta=pace.eta(),
            )
            if log:
                log.write(
                    state.step,
                    {
                        "loss": loss,
                        "loss_smoothed": report.smoothed,
                        "learning_rate": report.learning_rate,
                        "gradient_norm": norm,
                        "pictures_per_second": report.pictures_per_second,
                        "memory": report.memory,
                    },
                )
            wanted = self._call(progress, report)
            last = state.step == plan.steps
            if last or state.step % plan.checkpoint_every == 0:
                self._save()
                validation = self._validate(log)
            if plan.sample_every and (last or state.step % plan.sample_every == 0):
                self._draw(log)
            if not last and self._agree(self._stop() or not wanted):
                self._save()
                raise Cancelled("told to stop")
        return validation

    def _call(self, progress: Report, report: Progress) -> bool:
        """Report progress, and return whether to continue. If the callback raises, a checkpoint is written first."""
        try:
            return progress(report) is not False
        except BaseException:
            self._rescue()
            raise

    def _rescue(self) -> tuple[str, str]:
        """Write a checkpoint if that is still possible; return the end of a message, and the command that resumes."""
        step, config = self._state.step, self._run.config
        with suppress(LorablendError):
            self._write()
        names = [path for path in find_checkpoints(config.folder) if read_facts(path)[0] == step]
        return (f"; step {step} is kept", resume_command(config)) if names else ("", "")

    def _one_step(self) -> tuple[float, float, int]:
        """Take one step.

        Returns:
            The mean loss over its batches, the norm of the gradient before clipping, and the number of pictures on all
            devices.
        """
        config, accelerator = self._run.config, self._accelerator
        losses: list[torch.Tensor] = []
        pictures = 0
        for place in self._places(accelerator.process_index):
            picks = self._data.order.batch_at(place)
            batch = self._data.batch(picks)
            drawn = draw(config.seed, place, batch.latents.shape, self._noise.timesteps, offset=config.noise_offset)
            with accelerator.accumulate(self._wrapped):
                loss = self._loss(self._wrapped, batch, drawn)
                accelerator.backward(loss)
            losses.append(loss.detach())
            pictures += len(picks)
        norm = float(accelerator.clip_grad_norm_(self._state.parameters, config.max_grad_norm) or 0.0)
        gathered: Any = accelerator.gather(torch.stack(losses))  # by process, then by batch
        values: list[float] = gathered.flatten().tolist()
        if not (math.isfinite(norm) and all(map(math.isfinite, values))):
            self._refuse(values, norm)
        self._state.advance()
        return sum(values) / len(values), norm, pictures * accelerator.num_processes

    def _places(self, process: int) -> list[int]:
        count, processes = self._run.plan.accumulation, self._accelerator.num_processes
        return [(self._state.step * count + turn) * processes + process for turn in range(count)]

    def _loss(self, model: torch.nn.Module, batch: Batch, drawn: NoiseDraw, *, weighted: bool = True) -> torch.Tensor:
        device = batch.latents.device
        weights = self._noise.weights(drawn.timesteps, self._run.config.min_snr_gamma if weighted else None)
        drawn = NoiseDraw(drawn.timesteps.to(device), drawn.noise.to(device))
        noisy = self._noise.add_noise(batch.latents, drawn)
        target = self._noise.target(batch.latents, drawn)
        errors = (model(noisy, drawn.timesteps, batch.text, batch.time_ids).float() - target) ** 2
        if batch.mask is not None and weighted:
            errors = errors * batch.mask
        return (errors.mean((1, 2, 3)) * weights.to(device)).mean()

    def _refuse(self, losses: Sequence[float], norm: float) -> None:
        """Stop before a step whose loss or gradient is not finite: save the adapter, and name the pictures.

        A checkpoint of this very state would lead to the same step again, whatever the learning rate. It is deleted,
        so that a resume begins at the one before.
        """
        config, step, main = self._run.config, self._state.step, self._accelerator.is_main_process
        places = [place for process in range(self._accelerator.num_processes) for place in self._places(process)]
        bad = [index for index, loss in enumerate(losses) if not math.isfinite(loss)] or range(len(losses))
        names = [name for index in bad for name in self._data.names(self._data.order.batch_at(places[index]))]
        loss = next((loss for loss in losses if not math.isfinite(loss)), None)
        fault = f"the loss is {loss}" if loss is not None else f"the gradient's norm is {norm}"
        adapter = self._state.adapter_file
        if main and self._state.saved == step:
            find_checkpoints(config.folder)[-1].unlink()
        elif main and step:
            with suppress(LorablendError):  # finite numbers may still be too large for the file
                self._state.save_adapter(adapter)
        self._accelerator.wait_for_everyone()
        message = f"step {step + 1}: {fault}, with {listed(list(dict.fromkeys(names)), 'picture')}; "
        if step and adapter.exists():
            message += f"step {step} is kept in {adapter.name}; "
        rate = config.learning_rate or 0.0  # the plan has replaced None
        if checkpoints := find_checkpoints(config.folder):
            raise TrainError(
                f"{message}the last checkpoint before it is of step {read_facts(checkpoints[-1])[0]}; look at the "
                f"pictures, and take a learning_rate below {rate:g}",
                command=f"{resume_command(config)} --learning-rate {rate / 2:g}",
            )
        or_f32 = " or precision f32" if self._run.plan.precision != "f32" else ""
        raise TrainError(
            f"{message}there is no checkpoint before it; look at the pictures, and start again with a learning_rate "
            f"below {rate:g}{or_f32}"
        )

    @torch.no_grad()
    def _validate(self, log: RunLog | None) -> Mapping[str, float]:
        """Measure the unweighted squared error at fixed timesteps and noise on a few pictures, on the first process."""
        if not self._accelerator.is_main_process:
            return {}
        data, seed = self._data, self._run.config.seed
        probe = sorted(shuffled(range(data.trained), seed, "probe")[:PROBE])
        groups = {"probe": probe, "held out": range(data.trained, len(data.examples))[:HELD_OUT]}
        means: dict[str, float] = {}
        with self._state.averaged():
            self._trainee.eval()
            for name, indices in groups.items():
                losses = []
                for index in indices:
                    batch = data.batch([Pick(index, 0, False, False)] * TIMESTEPS)
                    drawn = fixed_draw(seed, index, batch.latents.shape, self._noise.timesteps)
                    losses.append(self._loss(self._trainee, batch, drawn, weighted=False).item())
                if losses:
                    means[name] = sum(losses) / len(losses)
            self._trainee.train()
        if log:
            values = {f"validation_loss/{name.replace(' ', '_')}": loss for name, loss in means.items()}
            log.write(self._state.step, values)
        return means

    def _draw(self, log: RunLog | None) -> None:
        """Draw a sheet of samples; after the first one, say how long the others will take."""
        if not (self._sampler and log):
            return
        step, started = self._state.step, time.monotonic()
        path, adapter = self._run.config.folder / f"samples-{step:06}.png", self._state.adapter_file
        self._state.save_adapter(adapter)
        try:
            self._sampler.grid(adapter, path, f"step {step}")
        except Cancelled:
            return  # the same signal ends the steps, and the last picture
        log.picture(step, "samples", path)
        steps, every = self._run.plan.steps, self._run.plan.sample_every
        if step == steps:
            return
        if not self._run.plan.keeps:
            self._sampler.release()  # the steps need its memory
        self._grids += 1
        if self._grids == 1:
            seconds, remaining = time.monotonic() - started, math.ceil(steps / every) - step // every
            self._say(
                f"samples of step {step} took {duration(seconds)}, including the base model's own; {remaining} more "
                f"will take about {duration(remaining * seconds / 2)} in all; --sample-every draws fewer, 0 none"
            )

    def _save(self) -> None:
        self._write()
        self._accelerator.wait_for_everyone()

    def _write(self) -> None:
        if self._accelerator.is_main_process:
            self._state.save()

    def _agree(self, stop: bool) -> bool:
        """Whether any process was told to stop."""
        if self._accelerator.num_processes == 1:
            return stop
        stops: Any = self._accelerator.gather(torch.tensor([float(stop)], device=self._accelerator.device))
        return stops.sum().item() > 0


def _ignore(_: object) -> None:
    """Take the place of `progress` and `say` in all processes but the first."""


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss

"""The steps of a training, on torch, peft, diffusers and accelerate.

Step s (from 0) takes, on process r of W, the batches (s·A + a)·W + r of `order.Order` for a in 0 .. A - 1, and draws
their noise for the same places: all chance is a function of the seed and the place, so a resume needs no generators.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
from diffusers.training_utils import EMAModel

from lorablend.adapters.errors import Cancelled, LorablendError, ResourceError, TrainError
from lorablend.adapters.wording import listed
from lorablend.train.base import BaseNetworks, load_base
from lorablend.train.batches import Batch, Data
from lorablend.train.chance import shuffled
from lorablend.train.checkpoint import Checkpoint, find_checkpoints, read_checkpoint, read_facts, write_checkpoint
from lorablend.train.config import TrainConfig
from lorablend.train.duration import HELD_OUT, PROBE, TIMESTEPS
from lorablend.train.logs import RunLog
from lorablend.train.networks import attach
from lorablend.train.noise import NoiseDraw, TrainingNoise, draw, fixed_draw
from lorablend.train.order import Pick
from lorablend.train.output import TrainingFacts, save_adapter
from lorablend.train.pace import Pace
from lorablend.train.preflight import duration
from lorablend.train.run import RATES, Progress, Run, resume_command
from lorablend.train.samples import Sampler, choose_prompts, convert_base
from lorablend.train.signals import stop_signals
from lorablend.train.text import encode

__all__ = ["run_training"]

_SMOOTH = 50  # steps
_PATIENCE = timedelta(days=1)

Report = Callable[[Progress], bool | None]
Say = Callable[[str], None]


def run_training(run: Run, progress: Report, say: Say) -> tuple[float, Mapping[str, float]]:
    """Train from the run's checkpoint, or from nothing, to the end; the smoothed loss, the losses on fixed noise."""
    AcceleratorState._reset_state()  # another training in this process may have had another precision
    on_cpu = not torch.cuda.is_available()
    # The others wait, after ten minutes no longer by default, while the first process converts the model and draws.
    PartialState(cpu=on_cpu, timeout=_PATIENCE)
    # Each process has looked at its own device; one plan for all, which fits the one with the least memory.
    run = min(gather_object([run]), key=lambda one: one.plan.free)
    config, plan = run.config, run.plan
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision="bf16" if plan.precision == "bf16" else "no",
        gradient_accumulation_steps=plan.accumulation,
        # the last layers of the first text encoder are not used, so they get no gradient
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=config.text_encoder)],
    )
    if not accelerator.is_main_process:
        say, progress = _nothing, _nothing
    for line in run.preflight.lines:
        say(line)
    folder = None
    if accelerator.is_main_process and plan.draws:
        folder = run.openvino or convert_base(run.base, say)
    accelerator.wait_for_everyone()
    dtype = torch.bfloat16 if plan.precision == "bf16" else torch.float32
    text_dtype = dtype if config.text_encoder else torch.float32  # what is kept in the cache is exact
    models = load_base(run.base, dtype=dtype, text_dtype=text_dtype)
    data = Data(run, models, accelerator, say)
    if not config.text_encoder:
        models = replace(models, text_encoders=())  # their work is done: the memory is the UNet's
    with stop_signals() as stop:
        trainer = _Trainer(run, models, accelerator, data, folder, stop, say)
        del models  # and the VAE's is
        return trainer.run(progress)


class _Trainee(torch.nn.Module):
    """All that is trained in one module, so that wrapping it for several devices wraps everything, and nothing looks
    through the wrapper."""

    def __init__(self, models: BaseNetworks) -> None:
        super().__init__()
        self.unet = models.unet
        self.text_encoders = torch.nn.ModuleList(models.text_encoders)
        self._sdxl = models.family == "sdxl"

    def forward(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, text: tuple[torch.Tensor, ...], time_ids: torch.Tensor
    ) -> torch.Tensor:
        """text: embeddings, and SDXL's pooled ones; or, where text encoders are trained, the tokens of each and a
        boolean per text: take zeros instead."""
        if len(self.text_encoders):
            *tokens, zero = text
            hidden, pooled = encode(list(self.text_encoders), tokens)
            hidden = hidden.masked_fill(zero[:, None, None], 0)
            pooled = None if pooled is None else pooled.masked_fill(zero[:, None], 0)
        else:
            hidden, pooled = text[0], text[1] if self._sdxl else None
        added = {"text_embeds": pooled, "time_ids": time_ids} if self._sdxl else None
        return self.unet(noisy, timesteps, hidden, added_cond_kwargs=added, return_dict=False)[0]


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
        self._network = attach(models, config)
        self._trainee = _Trainee(models).train()
        if plan.gradient_checkpointing:
            models.unet.enable_gradient_checkpointing()
            for encoder in models.text_encoders:
                encoder.gradient_checkpointing_enable()
        groups = self._network.parameters()
        self._parameters: list[torch.nn.Parameter] = [one for group in groups for one in group["params"]]
        optimizer = _optimizer(config, groups)
        # steps are counted by us, once per step on all devices together; accelerate's own wrapper counts per device
        self._schedule = get_scheduler(
            {"cosine": "cosine", "constant": "constant_with_warmup"}[config.schedule],
            optimizer,
            num_warmup_steps=plan.warmup_steps,
            num_training_steps=plan.steps,
        )
        self._wrapped, self._optimizer = accelerator.prepare(self._trainee, optimizer)
        self._average = EMAModel(self._parameters, decay=config.ema) if config.ema else None
        if self._average:
            self._average.to(accelerator.device)
        self._sampler = None
        if openvino:
            prompts = choose_prompts(config, run.dataset)
            self._sampler = Sampler(openvino, prompts, size=plan.resolution, seed=config.seed, stop=stop)
        self._grids = 0  # of samples, in this process
        self._step, self._smoothed = 0, 0.0
        if run.checkpoint:
            self._restore(read_checkpoint(run.checkpoint))
            say(f"resumed from step {self._step} of {plan.steps}")
        self._saved = self._step if run.checkpoint else -1
        say(f"{config.algorithm} of rank {config.rank}: {self._network.parameter_count:,} numbers to train")

    def run(self, progress: Report) -> tuple[float, Mapping[str, float]]:
        config, log = self._run.config, None
        if self._accelerator.is_main_process:
            config.folder.mkdir(exist_ok=True)
            (config.folder / "config.toml").write_text(self._run.asked.to_toml(), encoding="utf-8")
            log = RunLog(config.folder, self._step)
        try:
            validation = self._steps(progress, log)
            if log:
                with self._averaged():
                    self._save_adapter(config.out, self._sampler)
        except Cancelled as error:  # between two steps, or while the last picture was drawn
            raise Cancelled(
                f"stopped after step {self._step} of {self._run.plan.steps}", command=resume_command(config)
            ) from error
        except ResourceError as error:
            kept, command = self._rescue()
            raise ResourceError(f"{error}{kept}", command=command) from error
        except torch.OutOfMemoryError as error:
            kept, command = self._rescue()
            raise ResourceError(
                f"step {self._step + 1}: {self._run.plan.device} ran out of memory{kept}; free some, or start again "
                f"with batch {max(1, self._run.plan.batch // 2)}, gradient_checkpointing or a lower resolution",
                command=command,
            ) from error
        finally:
            if log:
                log.close()
        self._accelerator.wait_for_everyone()
        return self._smoothed, validation

    def _steps(self, progress: Report, log: RunLog | None) -> Mapping[str, float]:
        """All that are left; the losses on fixed noise at the end."""
        plan = self._run.plan
        validation = self._validate(log) if self._step in (0, plan.steps) else {}
        pace = Pace(self._step, plan.steps)
        while self._step < plan.steps:
            loss, norm, pictures = self._one_step()
            self._step += 1
            self._smoothed = _smooth(self._smoothed, loss, self._step)
            state = Progress(
                step=self._step,
                steps=plan.steps,
                loss=loss,
                smoothed=self._smoothed,
                learning_rate=self._rate(),
                pictures_per_second=pace.add(pictures),
                memory=_memory(self._accelerator.device),
                eta=pace.eta(),
            )
            if log:
                log.write(
                    self._step,
                    {
                        "loss": loss,
                        "loss_smoothed": state.smoothed,
                        "learning_rate": state.learning_rate,
                        "gradient_norm": norm,
                        "pictures_per_second": state.pictures_per_second,
                        "memory": state.memory,
                    },
                )
            wanted = self._call(progress, state)
            last = self._step == plan.steps
            if last or self._step % plan.checkpoint_every == 0:
                self._save()
                validation = self._validate(log)
            if plan.sample_every and (last or self._step % plan.sample_every == 0):
                self._draw(log)
            if not last and self._agree(self._stop() or not wanted):
                self._save()
                raise Cancelled("told to stop")
        return validation

    def _call(self, progress: Report, state: Progress) -> bool:
        """Whether to go on. What the caller raises is the caller's, but a checkpoint first."""
        try:
            return progress(state) is not False
        except BaseException:
            self._rescue()
            raise

    def _rescue(self) -> tuple[str, str]:
        """Write a checkpoint if it is still possible; the end of a message, and the command that goes on from it."""
        with suppress(LorablendError):
            self._write()
        names = [path for path in find_checkpoints(self._run.config.folder) if read_facts(path)[0] == self._step]
        return (f"; step {self._step} is kept", resume_command(self._run.config)) if names else ("", "")

    def _one_step(self) -> tuple[float, float, int]:
        """Loss, mean over all batches of the step; norm of the gradient before it is clipped; pictures, all devices."""
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
        norm = float(accelerator.clip_grad_norm_(self._parameters, config.max_grad_norm) or 0.0)
        gathered: Any = accelerator.gather(torch.stack(losses))  # by process, then by batch
        values: list[float] = gathered.flatten().tolist()
        if not (math.isfinite(norm) and all(map(math.isfinite, values))):
            self._no_number(values, norm)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._average:
            self._average.step(self._parameters)
        return sum(values) / len(values), norm, pictures * accelerator.num_processes

    def _places(self, process: int) -> list[int]:
        count, processes = self._run.plan.accumulation, self._accelerator.num_processes
        return [(self._step * count + turn) * processes + process for turn in range(count)]

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

    def _no_number(self, losses: Sequence[float], norm: float) -> None:
        """Nothing of this step was taken yet: name the pictures, keep the adapter before it, and stop.

        A checkpoint of the state before it leads to this same step again, whatever the learning rate, so it goes: a
        resume begins at the one before.
        """
        config, step, main = self._run.config, self._step, self._accelerator.is_main_process
        places = [place for process in range(self._accelerator.num_processes) for place in self._places(process)]
        bad = [index for index, loss in enumerate(losses) if not math.isfinite(loss)] or range(len(losses))
        names = [name for index in bad for name in self._data.names(self._data.order.batch_at(places[index]))]
        loss = next((loss for loss in losses if not math.isfinite(loss)), None)
        what = f"the loss is {loss}" if loss is not None else f"the gradient's norm is {norm}"
        if main and self._saved == step:
            find_checkpoints(config.folder)[-1].unlink()
        elif main and step:
            with suppress(LorablendError), self._averaged():  # numbers may be finite and yet too large for a file
                self._save_adapter(self._adapter_file(), None)
        self._accelerator.wait_for_everyone()
        begun = f"step {step + 1}: {what}, with {listed(list(dict.fromkeys(names)), 'picture')}; "
        if step and self._adapter_file().exists():
            begun += f"step {step} is kept in {self._adapter_file().name}; "
        rate = config.learning_rate or 0.0  # None is long resolved
        if kept := find_checkpoints(config.folder):
            raise TrainError(
                f"{begun}the last checkpoint before it is of step {read_facts(kept[-1])[0]}; look at the pictures, and "
                f"take a learning_rate below {rate:g}",
                command=f"{resume_command(config)} --learning-rate {rate / 2:g}",
            )
        or_f32 = " or precision f32" if self._run.plan.precision != "f32" else ""
        raise TrainError(
            f"{begun}there is no checkpoint before it; look at the pictures, and start again with a learning_rate "
            f"below {rate:g}{or_f32}"
        )

    @torch.no_grad()
    def _validate(self, log: RunLog | None) -> Mapping[str, float]:
        """Mean squared error at fixed timesteps and noise, unweighted, on a few pictures; on the first process only."""
        if not self._accelerator.is_main_process:
            return {}
        data, seed = self._data, self._run.config.seed
        probe = sorted(shuffled(range(data.trained), seed, "probe")[:PROBE])
        groups = {"probe": probe, "held out": range(data.trained, len(data.examples))[:HELD_OUT]}
        result: dict[str, float] = {}
        with self._averaged():
            self._trainee.eval()
            for name, indices in groups.items():
                losses = []
                for index in indices:
                    batch = data.batch([Pick(index, 0, False, False)] * TIMESTEPS)
                    drawn = fixed_draw(seed, index, batch.latents.shape, self._noise.timesteps)
                    losses.append(self._loss(self._trainee, batch, drawn, weighted=False).item())
                if losses:
                    result[name] = sum(losses) / len(losses)
            self._trainee.train()
        if log:
            log.write(self._step, {f"validation_loss/{name.replace(' ', '_')}": loss for name, loss in result.items()})
        return result

    def _draw(self, log: RunLog | None) -> None:
        if not (self._sampler and log):
            return
        path, started = self._run.config.folder / f"samples-{self._step:06}.png", time.monotonic()
        adapter = self._adapter_file()
        with self._averaged():
            self._save_adapter(adapter, None)
        try:
            self._sampler.grid(adapter, path, f"step {self._step}")
        except Cancelled:
            return  # the same signal ends the steps, and the last picture
        log.picture(self._step, "samples", path)
        steps, every = self._run.plan.steps, self._run.plan.sample_every
        if self._step == steps:
            return
        if not self._run.plan.keeps:
            self._sampler.release()  # the steps need its memory
        self._grids += 1
        if self._grids == 1:
            seconds, left = time.monotonic() - started, math.ceil(steps / every) - self._step // every
            self._say(
                f"samples of step {self._step} took {duration(seconds)}, the base model's own included; {left} more "
                f"will take about {duration(left * seconds / 2)} together: --sample-every draws fewer, with 0 none"
            )

    def _adapter_file(self) -> Path:
        config = self._run.config
        return config.folder / f"{config.out.stem}-{self._step:06}.safetensors"

    def _save(self) -> None:
        self._write()
        self._accelerator.wait_for_everyone()

    def _write(self) -> None:
        """A checkpoint, and the adapter as it is at this step; once for each step, by the first process."""
        if self._saved == self._step or not self._accelerator.is_main_process:
            return
        self._saved = self._step
        state = {
            "network": self._network.state(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "average": self._average.state_dict() if self._average else None,
            "smoothed": self._smoothed,
        }
        checkpoint = Checkpoint(self._step, self._run.facts, state)
        write_checkpoint(self._run.config.folder, checkpoint, keep=self._run.config.keep)
        with self._averaged():
            self._save_adapter(self._adapter_file(), None)

    def _restore(self, checkpoint: Checkpoint) -> None:
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
                self._say(f"{name} is {rate:g} from step {checkpoint.step + 1} on, before it was {before:g}")
        if self._average:
            self._average.load_state_dict(state["average"])
            self._average.to(self._accelerator.device)  # it has taken the checkpoint's own tensors
        self._step, self._smoothed = checkpoint.step, state["smoothed"]

    def _save_adapter(self, path: Path, sampler: Sampler | None) -> None:
        run, plan = self._run, self._run.plan
        facts = TrainingFacts(
            base_name=run.base.name,
            base_sha256=run.base.sha256,
            prediction_type=run.base.prediction_type,
            resolution=plan.resolution,
            steps=self._step,
            total_steps=plan.steps,
            warmup_steps=plan.warmup_steps,
            pictures=len(run.dataset.examples),
            batch=plan.batch * plan.accumulation * plan.processes,
            accumulation=plan.accumulation,
            precision=plan.precision,
            gradient_checkpointing=plan.gradient_checkpointing,
        )
        save_adapter(path, self._network, run.config, run.dataset, facts, sampler)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The network's averaged numbers in their place, if there are any."""
        if self._average is None:
            yield
            return
        self._average.store(self._parameters)
        self._average.copy_to(self._parameters)
        try:
            yield
        finally:
            self._average.restore(self._parameters)

    def _rate(self) -> float:
        group = self._optimizer.param_groups[0]
        return float(group["lr"] * group.get("d", 1.0))  # Prodigy's own estimate

    def _agree(self, stop: bool) -> bool:
        """Whether any process was told to stop."""
        if self._accelerator.num_processes == 1:
            return stop
        told: Any = self._accelerator.gather(torch.tensor([float(stop)], device=self._accelerator.device))
        return told.sum().item() > 0


def _nothing(_: object) -> None:
    """For the processes that are not the first."""


def _optimizer(config: TrainConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if config.optimizer == "prodigy":
        from prodigyopt import Prodigy  # pyright: ignore[reportMissingImports] - as its users install it

        return Prodigy(
            groups,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            use_bias_correction=True,
            safeguard_warmup=True,
        )
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def _smooth(before: float, loss: float, step: int) -> float:
    """A mean over the first steps, then one that forgets them."""
    share = max(1 / step, 1 / _SMOOTH)
    return before + share * (loss - before)


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss

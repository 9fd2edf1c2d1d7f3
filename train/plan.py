"""Choose what a configuration leaves open, by the model, the number of pictures and the available memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import psutil

from lorablend.adapters.errors import ResourceError, TrainError
from lorablend.train.base import Base
from lorablend.train.config import TrainConfig
from lorablend.train.networks import default_alpha

__all__ = ["Machine", "TrainPlan", "find_machine", "make_plan", "memory_needed", "numbers_needed"]

_PICTURE_STEPS = 1200  # common elsewhere for 10 to 30 pictures
_STEPS_PER_PICTURE = 40  # for more than 30 pictures
# AdamW's best rate falls as a network gets wider (arXiv 2203.03466, table 8); well known only for SDXL and SD 1.5.
_RATE, _RATE_WIDTH = 1e-4, 1280
_BATCH = 4  # pictures per optimizer step, by default
# Bytes that the backward pass keeps in bf16 per position and channel, of a resnet and of a transformer block, without
# (False) and with gradient checkpointing. Fitted to what autograd saved (saved_tensors_hooks) for eight UNets, within
# 6 % without and 13 % with checkpointing; f32 takes twice as much.
_SAVED = {False: (16, 80), True: (8, 2.5)}
_SPARE = 1.2  # for the kernels' temporary tensors
_CUDA_CONTEXT = 0.8e9
_VAE = 25  # bytes per pixel and channel at full resolution, measured on SDXL's in f32: 20 to encode, 25 to decode
_USABLE = {"cuda": 0.95, "cpu": 0.8}  # fraction of the free memory


@dataclass(frozen=True)
class Machine:
    """The device that trains.

    Attributes:
        device: "cpu" or "cuda".
        name: For people.
        free: Bytes of its memory that are free.
        bf16: Whether bf16 is fast there.
        processes: Their number, on all devices.
        host: Bytes of the CPU's memory that are free, if the device has its own.
    """

    device: str
    name: str
    free: int
    bf16: bool
    processes: int = 1
    host: int = 0


@dataclass(frozen=True)
class TrainPlan:
    """Every number that a configuration may leave open, and the device.

    Attributes:
        memory: Bytes needed, an estimate.
        drawing: Additional bytes of the CPU's memory for drawing a sample.
        draws: Whether they are available.
        keeps: Whether they are available during the steps too.
    """

    steps: int
    batch: int
    accumulation: int
    processes: int
    resolution: int
    alpha: float
    learning_rate: float
    precision: str
    gradient_checkpointing: bool
    warmup_steps: int
    checkpoint_every: int
    sample_every: int
    device: str
    memory: int
    free: int
    drawing: int
    draws: bool
    keeps: bool

    @property
    def pictures(self) -> int:
        """Pictures shown in all, over all devices, at most."""
        return self.steps * self.batch * self.accumulation * self.processes

    def resolve(self, config: TrainConfig) -> TrainConfig:
        """Replace every None of the configuration by the plan's choice."""
        values = asdict(self)
        names = [name for name in TrainConfig.model_fields if name in values]
        return config.model_copy(update={name: values[name] for name in names})

    def lines(self) -> Iterator[str]:
        """Describe the choices for people."""
        parts = [f"{self.batch} at once"]
        if self.accumulation > 1:
            parts.append(f"{self.accumulation} times before each step")
        if self.processes > 1:
            parts.append(f"on {self.processes} devices")
        rate = f"learning rate {self.learning_rate:g}"
        yield f"{self.steps} steps of {self.pictures // self.steps} pictures: {', '.join(parts)}; {rate}"
        checkpointing = ", gradient checkpointing" if self.gradient_checkpointing else ""
        yield f"{self.device}, {self.precision}{checkpointing}; about {_gb(self.memory)} of {_gb(self.free)} free"
        if not self.draws:
            yield (
                f"note: no samples, and no picture to check the file with: drawing would take another "
                f"{_gb(self.drawing)} of the CPU's memory, which is not free"
            )


def find_machine() -> Machine:
    """The device that accelerate uses in this process, and the number of processes it started. Needs torch."""
    import torch

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    host = psutil.virtual_memory().available
    if torch.cuda.is_available():
        card = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        with torch.cuda.device(card):
            free, _ = torch.cuda.mem_get_info()
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            return Machine("cuda", torch.cuda.get_device_name(), free, bf16, processes, host)
    # torch computes bf16 on any CPU, but without these instructions more slowly than f32
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    fast = any(getattr(torch.cpu, name, lambda: False)() for name in probes)
    return Machine("cpu", f"{torch.get_num_threads()} CPU threads", host // processes, fast, processes)


def make_plan(
    config: TrainConfig, base: Base, pictures: int, machine: Machine, resumed: Mapping[str, Any] | None = None
) -> TrainPlan:
    """Choose what the configuration leaves open.

    A batch has as many of 4 pictures as fit into memory, without gradient checkpointing if at least one fits; the
    accumulation makes up for the rest.

    Args:
        pictures: The number of training pictures.
        resumed: The settings of the run that is resumed, with nothing left open.

    Raises:
        ResourceError: Nothing fits into memory.
        TrainError: The resolution or the precision does not suit model or device.
    """
    resumed = resumed or {}
    given = {name: getattr(config, name) if getattr(config, name) is not None else resumed.get(name) for name in _OPEN}
    resolution = given["resolution"] or base.resolution
    if resolution < base.unit:
        raise TrainError(f"resolution is {resolution}, {base.name} needs at least {base.unit}; give a larger one")
    if resolution % base.unit:
        below = resolution // base.unit * base.unit
        raise TrainError(
            f"resolution is {resolution}, {base.name} takes multiples of {base.unit}; give {below} or "
            f"{below + base.unit}"
        )
    precision = config.precision if config.precision != "auto" else resumed.get("precision")
    precision = precision or ("bf16" if machine.bf16 else "f32")
    if precision == "bf16" and machine.device == "cuda" and not machine.bf16:
        raise TrainError(f"precision is bf16, which {machine.name} does not support; give f32 or auto")

    batch, checkpointing, memory = _fit(config, base, resolution, precision, given, machine)
    accumulation = given["accumulation"] or ceil(_BATCH / (batch * machine.processes))
    if given["accumulation"] is None and given["batch"] is not None:
        accumulation = 1
    effective = batch * accumulation * machine.processes
    steps = given["steps"] or ceil(max(_PICTURE_STEPS, _STEPS_PER_PICTURE * pictures) / effective)
    checkpoint_every = ceil(steps / config.checkpoints)
    drawing = _drawing(base, resolution, machine)
    if machine.device == "cuda":
        draws = keeps = drawing <= _USABLE["cpu"] * machine.host
    else:
        room = _USABLE["cpu"] * machine.free
        between_steps = drawing + sum(_resident(config, base, precision))
        draws, keeps = between_steps <= room, memory + drawing <= room
        memory = memory + drawing if keeps else max(memory, between_steps) if draws else memory
    sample_every = checkpoint_every if config.sample_every is None else config.sample_every
    return TrainPlan(
        steps=steps,
        batch=batch,
        accumulation=accumulation,
        processes=machine.processes,
        resolution=resolution,
        alpha=config.alpha or default_alpha(base.family, config.rank),
        learning_rate=given["learning_rate"] or float(f"{_RATE * _RATE_WIDTH / _width(base):.1g}"),
        precision=precision,
        gradient_checkpointing=checkpointing,
        warmup_steps=round(config.warmup * steps),
        checkpoint_every=checkpoint_every,
        sample_every=sample_every if draws else 0,
        device=machine.name,
        memory=memory,
        free=machine.free,
        drawing=drawing,
        draws=draws,
        keeps=keeps,
    )


_OPEN = ("steps", "batch", "accumulation", "resolution", "gradient_checkpointing", "learning_rate")


def memory_needed(
    config: TrainConfig, base: Base, resolution: int, precision: str, batch: int, checkpointing: bool, device: str
) -> int:
    """Estimate the bytes at the peak of training, without samples.

    They are weights, the network with its gradients and moments, and activations; on a CPU the peak may also be the
    filling of the caches, with the whole base model in memory.
    """
    width = 2 if precision == "bf16" else 4
    weights, network = _resident(config, base, precision)
    resnets, transformers, largest = _positions(base, resolution)
    saved = _SAVED[checkpointing]
    activations = batch * (width / 2) * (saved[0] * resnets + saved[1] * transformers)
    if checkpointing:  # one block at a time is computed again
        activations += batch * (width / 2) * sum(_SAVED[False]) * largest
    step = weights + network + _SPARE * activations
    if device == "cuda":  # the UNet is moved there after the caches are filled
        return int(step + _CUDA_CONTEXT)
    counts = base.source.parameters
    texts = 0 if config.text_encoder else 4 * sum(counts[name] for name in base.text_encoders)  # f32
    return int(max(step, weights + texts + 4 * counts["vae"] + _VAE * _vae_width(base) * resolution**2))


def numbers_needed(config: TrainConfig, base: Base) -> int:
    """Estimate how many numbers are trained."""
    trained = base.source.parameters["unet"]
    if config.text_encoder:
        trained += sum(base.source.parameters[name] for name in base.text_encoders)
    # Factors of rank r add about 2·r·√(in·out) to in·out numbers; layers of SD are about 1,000 wide.
    return int(min(1.0, 2 * config.rank / max(64, _width(base))) * trained)


def _resident(config: TrainConfig, base: Base, precision: str) -> tuple[int, int]:
    """Bytes that are always in memory: weights, and the network with its gradients and moments.

    The VAE is freed when the caches are filled, and so are text encoders that are not trained.
    """
    names = ("unet", *base.text_encoders) if config.text_encoder else ("unet",)
    weights = (2 if precision == "bf16" else 4) * sum(base.source.parameters[name] for name in names)
    return weights, 16 * numbers_needed(config, base)  # number, gradient and AdamW's two moments, f32


def _drawing(base: Base, resolution: int, machine: Machine) -> int:
    """Bytes of the CPU's memory for OpenVINO's own copy of all weights; the file's mapped pages can be evicted."""
    width = 2 if machine.device == "cpu" and machine.bf16 else 4
    return int(width * sum(base.source.parameters.values()) + _VAE * _vae_width(base) * resolution**2)


def _fit(
    config: TrainConfig, base: Base, resolution: int, precision: str, given: Mapping[str, Any], machine: Machine
) -> tuple[int, bool, int]:
    """Choose batch and gradient checkpointing; return them with the bytes needed."""
    batches = (_BATCH, 2, 1) if given["batch"] is None else (given["batch"],)
    choices = (False, True) if given["gradient_checkpointing"] is None else (given["gradient_checkpointing"],)
    room = _USABLE[machine.device] * machine.free
    needed = 0
    for checkpointing in choices:
        for batch in batches:
            needed = memory_needed(config, base, resolution, precision, batch, checkpointing, machine.device)
            if needed <= room:
                return batch, checkpointing, needed
    remedies = []
    if given["gradient_checkpointing"] is False:
        remedies.append("allow gradient_checkpointing")
    if batches[-1] > 1:
        remedies.append("lower batch")
    if precision == "f32" and machine.bf16:
        remedies.append("use precision bf16")
    remedies += ["lower resolution", "close other programs"]
    raise ResourceError(
        f"{base.name} at {resolution} pixels needs about {_gb(needed)} with batch {batches[-1]}, {machine.name} "
        f"{'has' if machine.device == 'cuda' else 'have'} {_gb(machine.free)} free; {' or '.join(remedies)}"
    )


def _vae_width(base: Base) -> int:
    """Channels at full resolution."""
    return base.vae.get("block_out_channels", (128,))[0]


def _width(base: Base) -> int:
    """Channels of the widest block of the UNet."""
    return max(base.unet["block_out_channels"])


def _positions(base: Base, resolution: int) -> tuple[int, int, int]:
    """Latent positions × channels of a square picture: sums over resnets and transformer blocks, and the largest."""
    channels = base.unet["block_out_channels"]
    down = base.unet["down_block_types"]
    layers = 2 * base.unet.get("layers_per_block", 2) + 1  # on the way down and up
    depths = base.unet.get("transformer_layers_per_block", 1)
    depths = [depths] * len(channels) if isinstance(depths, int) else list(depths)
    sizes = [(resolution // base.cell // 2**level) ** 2 * width for level, width in enumerate(channels)]
    resnets, transformers = 2 * sizes[-1], depths[-1] * sizes[-1]  # in the middle
    for size, kind, depth in zip(sizes, down, depths, strict=True):
        resnets += size * layers
        transformers += size * layers * depth * ("CrossAttn" in kind)
    return resnets, transformers, max(sizes)


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"

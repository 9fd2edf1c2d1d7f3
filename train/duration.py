"""The duration of a training: the arithmetic of its steps over the machine's speed at multiplying large matrices."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

from lorablend.train.samples import PROMPTS, STEPS

if TYPE_CHECKING:
    from lorablend.train.base import Base
    from lorablend.train.config import TrainConfig
    from lorablend.train.plan import TrainPlan

__all__ = [
    "HELD_OUT",
    "PROBE",
    "SPREAD",
    "TIMESTEPS",
    "TOKENS",
    "Speed",
    "estimate_seconds",
    "forward_operations",
    "measure_speed",
]

SPREAD = 1.8  # the range shown to people is the estimate divided and multiplied by this
# The fraction of the speed of one large product that a step reaches. Measured on the CPU, in seconds of the processor:
# SDXL in bf16 0.59 (13.9 s a step; 12.5 in bench/RESULTS.md); the demo model, 192 channels wide, with batch 4 in bf16
# 0.27, with batch 1 0.16, in f32 0.64: casts matter if layers are narrow. No GPU was measured.
_EFFICIENCY = 0.6
_WIDE = 1280
_DORA = 1.4  # for the lengths of all rows in each pass; measured with the demo model
_DRAWING = 3  # OpenVINO's speed relative to torch's: 2.0 s a pass of SDXL, in the same file
# For the loss on fixed noise
PROBE = 8  # training pictures
HELD_OUT = 4 * PROBE  # held-out pictures, at most
TIMESTEPS = 4  # of each picture

_PROBE_SECONDS = 0.15
_PROBE_PRODUCTS = 4  # at least; the fastest counts, for another program may have delayed the others
_PROBE_WIDTH = 1024  # about that of SDXL's own products at 512 pixels, so that the cost of a kernel's start is included
TOKENS = 77  # of a text


class Speed(NamedTuple):
    """Additions and multiplications per second, of the device that trains and of the CPU, which draws the samples."""

    device: float
    cpu: float


def estimate_seconds(
    config: TrainConfig, base: Base, plan: TrainPlan, *, mean_batch: float, held_out: int, speed: Speed
) -> float:
    """Estimate the seconds of all steps, validations and samples, without the preparation."""
    cells = plan.resolution // base.cell
    width = max(base.unet["block_out_channels"])
    # The forward pass, and the backward pass to the frozen layers' inputs, which is as long; the rest is negligible.
    passes = 3 if plan.gradient_checkpointing else 2
    done = passes * plan.steps * plan.accumulation * mean_batch * (_DORA if config.algorithm == "dora" else 1)
    done += (1 + ceil(plan.steps / plan.checkpoint_every)) * TIMESTEPS * (PROBE + min(HELD_OUT, held_out))
    sampled = 2 * STEPS * (len(config.validation_prompts) or PROMPTS)  # with and without the prompt
    drawn = ceil(plan.steps / plan.sample_every) * sampled / _DRAWING if plan.sample_every else 0.0
    efficiency = _EFFICIENCY * (min(1.0, width / _WIDE) ** 0.5 if plan.precision == "bf16" else 1)
    return (done / speed.device + drawn / speed.cpu) * forward_operations(base.unet, cells, cells) / efficiency


def forward_operations(unet: Mapping[str, Any], height: int, width: int) -> float:
    """Count the additions and multiplications of one pass of a UNet with this configuration over a latent."""
    channels = unet["block_out_channels"]
    last = len(channels) - 1
    layers = unet.get("layers_per_block", 2)
    depths = unet.get("transformer_layers_per_block", 1)
    depths = [depths] * len(channels) if isinstance(depths, int) else list(depths)
    depths = [depth * ("CrossAttn" in kind) for depth, kind in zip(depths, unet["down_block_types"], strict=True)]
    context = unet.get("cross_attention_dim", 1280)
    cells = [-(-height // 2**level) * -(-width // 2**level) for level in range(len(channels))]

    def resnet(inner: int, outer: int, level: int) -> float:
        shortcut = inner * outer * (inner != outer)
        return cells[level] * (9 * outer * (inner + outer) + shortcut) + 4 * channels[0] * outer

    def attentions(level: int, depth: int) -> float:
        size, positions = channels[level], cells[level]
        itself = 4 * positions * size**2 + 2 * positions**2 * size
        text = 2 * positions * size**2 + 2 * TOKENS * context * size + 2 * positions * TOKENS * size
        feed_forward = 12 * positions * size**2
        return (2 * positions * size**2 + depth * (itself + text + feed_forward)) * (depth > 0)

    # the samplers between levels, and the convolutions at both ends
    total = 9.0 * cells[0] * channels[0] * (unet.get("in_channels", 4) + unet.get("out_channels", 4))
    total += sum(9 * channels[level] ** 2 * cells[level + 1] for level in range(last))
    total += sum(9 * channels[level + 1] ** 2 * cells[level] for level in range(last))
    # the middle
    total += 2 * resnet(channels[last], channels[last], last) + attentions(last, depths[last] or 1)
    for level, size in enumerate(channels):
        below = channels[max(0, level - 1)]
        total += resnet(below, size, level) + (layers - 1) * resnet(size, size, level)
        above = channels[min(last, level + 1)]
        skips = [size] * layers + [below]  # channels of the skip connections, the last one first
        inputs = [above] + [size] * layers
        total += sum(resnet(inner + skip, size, level) for inner, skip in zip(inputs, skips, strict=True))
        total += (2 * layers + 1) * attentions(level, depths[level])
    return 2 * total


def measure_speed(precision: str) -> Speed:
    """Measure this machine's speed now, in "bf16" or "f32". Needs torch."""
    import torch

    cpu = _speed_of("cpu", precision)
    return Speed(_speed_of("cuda", precision) if torch.cuda.is_available() else cpu, cpu)


def _speed_of(device: str, precision: str) -> float:
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    square = torch.ones(_PROBE_WIDTH, _PROBE_WIDTH, dtype=dtype, device=device)
    best, products, end = float("inf"), 0, time.perf_counter() + _PROBE_SECONDS
    while products < _PROBE_PRODUCTS or time.perf_counter() < end:
        started = time.perf_counter()
        _ = square @ square
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
        products += 1
    return 2.0 * _PROBE_WIDTH**3 / best

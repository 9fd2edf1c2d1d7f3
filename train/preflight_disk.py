"""The disk space that a training needs, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from lorablend.adapters.errors import ResourceError
from lorablend.engine import default_cache_dir
from lorablend.train.checkpoint import find_checkpoints, read_facts
from lorablend.train.data.buckets import assign, bucket_step
from lorablend.train.data.captions import training_texts
from lorablend.train.data.examples import Example
from lorablend.train.duration import TOKENS
from lorablend.train.plan import numbers_needed
from lorablend.train.samples import openvino_folder

if TYPE_CHECKING:
    from lorablend.train.base import Base
    from lorablend.train.config import TrainConfig
    from lorablend.train.plan import TrainPlan

__all__ = ["cached_bytes", "check_disk"]


def check_disk(
    config: TrainConfig, base: Base, plan: TrainPlan, examples: Sequence[Example], *, openvino: Path | None
) -> None:
    """Raise ResourceError if the disk has no room for what the training writes, by an estimate.

    Args:
        config: With every None replaced by the plan's choice.
        examples: Including the held-out ones.
        openvino: As for `loop.train`.
    """
    folder, cache = config.folder, default_cache_dir()
    written = {"checkpoints and adapters": _kept_bytes(config, base, plan)}
    cached = {"latents and texts": max(0, cached_bytes(config, base, plan, examples) - _size(cache / "train"))}
    if plan.draws and openvino is None and not openvino_folder(base).exists():
        cached[f"{base.name} as converted for samples"] = 2 * sum(base.source.parameters.values())  # fp16
    less = "lower keep or checkpoints, give another folder as out"
    move = "set LORABLEND_CACHE to a folder on another disk"
    if _existing(folder).stat().st_dev == _existing(cache).stat().st_dev:
        _check_room(folder, written | cached, f"{less}, or {move}")
    else:
        _check_room(folder, written, f"or {less}")
        _check_room(cache, cached, f"or {move}")


def cached_bytes(config: TrainConfig, base: Base, plan: TrainPlan, examples: Sequence[Example]) -> int:
    """Bytes that `batches.Data` keeps in the cache, all f32.

    They are a latent of each crop, and of its mirror image, and the embeddings of each text unless the text encoders
    are trained.
    """
    step = bucket_step(base.unit, plan.resolution)
    crops = assign([example.size for example in examples], plan.resolution, step, buckets=config.buckets)
    latents = sum(crop.width * crop.height for crop in crops) / base.cell**2 * base.vae.get("latent_channels", 4)
    texts: set[str] = set()
    if not config.text_encoder:
        texts = {""}.union(*(training_texts(example, config) for example in examples))
    embedding = TOKENS * base.unet.get("cross_attention_dim", 1280)  # SDXL's pooled one is negligible
    return int(4 * ((1 + config.flip) * latents + len(texts) * embedding))


def _kept_bytes(config: TrainConfig, base: Base, plan: TrainPlan) -> int:
    """Bytes of the checkpoints and adapters that are still to be written."""
    existing = find_checkpoints(config.folder)
    done = read_facts(existing[-1])[0] if existing else 0
    # a checkpoint has the numbers, two moments and perhaps an average; while it is written there is one more than stays
    checkpoints = max(1, config.keep + 1 - len(existing)) * (4 if config.ema else 3)
    drawn = range(plan.sample_every, plan.steps, plan.sample_every) if plan.sample_every else ()
    steps = {*range(plan.checkpoint_every, plan.steps, plan.checkpoint_every), *drawn, plan.steps}
    adapters = 1 + sum(step > done for step in steps)
    return 4 * numbers_needed(config, base) * (checkpoints + adapters)


def _check_room(folder: Path, needed: dict[str, int], remedies: str) -> None:
    free = psutil.disk_usage(str(_existing(folder))).free
    if sum(needed.values()) > free:
        parts = ", ".join(f"{_gb(size)} for {what}" for what, size in needed.items() if size)
        raise ResourceError(
            f"{folder}: the disk has {_gb(free)} free and needs about {parts}; free up space, {remedies}"
        )


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _size(folder: Path) -> int:
    """Bytes that an earlier run has left in the cache: most likely for the same pictures and texts."""
    total = 0
    for path in folder.glob("*/*.safetensors"):
        with suppress(FileNotFoundError):  # another training may evict it
            total += path.stat().st_size
    return total


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"

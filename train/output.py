"""The file that a training is for: written whole or not at all, the same bytes for the same training, and tried out.

No path, date or time of day is in it. kohya's ss_* entries are named as sd-scripts names them (train_network.py),
modelspec.* follows https://github.com/Stability-AI/ModelSpec; `lorablend.made_by` holds every setting as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lorablend.adapters import Adapter, load_adapter
from lorablend.adapters.errors import AdapterError, ResourceError, TrainError
from lorablend.adapters.files.provenance import merged_metadata, with_hashes
from lorablend.adapters.files.write import Stored, stored, write_file
from lorablend.adapters.wording import shown
from lorablend.train.samples import texts_of

if TYPE_CHECKING:
    from lorablend.train.config import TrainConfig
    from lorablend.train.data.layouts import DataSet
    from lorablend.train.networks import Network
    from lorablend.train.samples import Sampler

__all__ = ["TrainingFacts", "check_adapter", "metadata_of", "save_adapter"]

# Of a tensor's Frobenius norm. Rounding normal numbers to f16 costs 2e-4; numbers below 6e-5, of a training that has
# only just begun, would lose more, and stay f32.
_ROUNDING = 4e-4
_TOLERANCE = 1e-3  # of a change's Frobenius norm: the rounding of up to four factors
_CANCELLATION = 1e-6  # of the weight's: DoRA's change is a difference of two f32 weights
_MOST_TAGS = 1000


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """What the configuration leaves open, as it was in this training.

    base_name: a Hub id, or the name of a folder or file, never a path. base_sha256: in hex. resolution: pixels of a
    side of the square that has the area trained at. steps: of the optimizer, done so far. total_steps: planned.
    pictures: trained on, not counting repeats. batch: pictures per step, over all devices and accumulated batches.
    precision: "f32" or "bf16".
    """

    base_name: str
    base_sha256: str | None
    prediction_type: str
    resolution: int
    steps: int
    total_steps: int
    warmup_steps: int
    pictures: int
    batch: int
    accumulation: int
    precision: str
    gradient_checkpointing: bool


def save_adapter(
    path: Path,
    network: Network,
    config: TrainConfig,
    dataset: DataSet,
    facts: TrainingFacts,
    sampler: Sampler | None = None,
) -> None:
    """Write the network to `path`, in place of a file that is there; only once the new one has passed every check.

    The factors are f16, except where that would lose much of them; magnitudes and alphas are f32. sampler: draws with
    the file, and the picture must differ from the base model's; None leaves that out, for checkpoints.

    Raises TrainError where the result is of no use, ResourceError where the disk refuses.
    """
    arrays, entries = network.tensors(config.keys)
    try:
        tensors = _round(arrays)
    except AdapterError as error:
        raise TrainError(f"{shown(path.name)}: {error}") from error
    metadata = with_hashes(metadata_of(path.stem, network, config, dataset, facts) | entries, tensors)
    work = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.safetensors")
    try:
        write_file(work, tensors, metadata)
        check_adapter(work, network, path.name)
        if sampler is not None and not sampler.differs(work):
            raise TrainError(
                f"{shown(path.name)}: with it the picture is the base model's own, {facts.steps} steps at learning "
                f"rate {config.learning_rate:g} have taught nothing; train longer or raise the learning rate"
            )
        os.replace(work, path)
    except OSError as error:
        raise ResourceError(f"{shown(path)} could not be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            work.unlink(missing_ok=True)


def check_adapter(path: Path, network: Network, name: str) -> Adapter:
    """Read the file as any user of it would, and compare each change with the trained module's own. TrainError."""
    try:
        adapter = load_adapter(path)
    except AdapterError as error:
        raise TrainError(f"{shown(name)} cannot be used: {str(error).partition(': ')[2] or error}") from error
    if adapter.covered != adapter.tensor_count or adapter.deltas.keys() != set(network.modules):
        raise TrainError(
            f"{shown(name)}: {adapter.covered} of {adapter.tensor_count} tensors and {len(adapter.deltas)} of "
            f"{len(network.modules)} modules are understood; this is a fault of lorablend, please report it"
        )
    if adapter.base_model not in (network.family, "unknown"):
        raise TrainError(
            f"{shown(name)} reads as one for {adapter.base_model}, it was trained on {network.family}; this is a fault "
            "of lorablend, please report it"
        )
    for module, (weight, change) in network.changes():
        error = _norm(adapter.deltas[module].dense(weight) - change)
        # written so that a NaN fails
        if not error <= _TOLERANCE * _norm(change) + _CANCELLATION * _norm(weight) * (network.algorithm == "dora"):
            raise TrainError(
                f"{shown(name)}: {' '.join(module)} is {error / max(_norm(change), 1e-30):.1e} away from what was "
                f"trained, {_TOLERANCE:g} is allowed; this is a fault of lorablend, please report it"
            )
    return adapter


def metadata_of(
    title: str, network: Network, config: TrainConfig, dataset: DataSet, facts: TrainingFacts
) -> dict[str, str]:
    """Every entry that does not depend on the tensors. What is unknown is left out."""
    name = config.data.resolve().name
    settings = config.model_dump(mode="json", exclude={"data", "out", "model"})
    settings |= {"data": name, "model": facts.base_name, "alpha": network.alpha}
    entries = merged_metadata((), network.family, title, {"tool": "train", "settings": settings, "inputs": []})
    text_rate = config.text_encoder_learning_rate if config.text_encoder else None
    captions = [texts_of(example) for example in dataset.examples]
    values = {
        "modelspec.resolution": f"{facts.resolution}x{facts.resolution}",
        "modelspec.prediction_type": {"v_prediction": "v"}.get(facts.prediction_type, facts.prediction_type),
        "modelspec.trigger_phrase": dataset.trigger,
        "ss_output_name": title,
        "ss_sd_model_name": facts.base_name,
        "ss_new_sd_model_hash": facts.base_sha256,
        "ss_learning_rate": config.learning_rate,
        "ss_unet_lr": config.learning_rate,
        "ss_text_encoder_lr": text_rate,
        "ss_optimizer": config.optimizer,
        "ss_lr_scheduler": config.schedule,
        "ss_lr_warmup_steps": facts.warmup_steps,
        "ss_steps": facts.steps,
        "ss_max_train_steps": facts.total_steps,
        "ss_num_train_images": facts.pictures,
        "ss_total_batch_size": facts.batch,
        "ss_gradient_accumulation_steps": facts.accumulation,
        "ss_gradient_checkpointing": facts.gradient_checkpointing,
        "ss_max_grad_norm": config.max_grad_norm,
        "ss_min_snr_gamma": config.min_snr_gamma,
        "ss_noise_offset": config.noise_offset,
        "ss_caption_dropout_rate": config.caption_dropout,
        "ss_mixed_precision": {"f32": "no"}.get(facts.precision, facts.precision),
        "ss_resolution": f"({facts.resolution}, {facts.resolution})",
        "ss_enable_bucket": config.buckets,
        "ss_seed": config.seed,
        "ss_dataset_dirs": json.dumps({name: {"img_count": facts.pictures}}),
        "ss_tag_frequency": json.dumps({name: _tag_frequency(captions)}, ensure_ascii=False),
    }
    return entries | {key: str(value) for key, value in values.items() if value is not None and value != ""}


def _tag_frequency(captions: list[tuple[str, ...]]) -> dict[str, int]:
    """What stands between commas, and in how many captions; the most frequent first."""
    counts = Counter(
        tag
        for forms in captions
        for form in forms
        for tag in dict.fromkeys(part.strip() for part in form.split(","))
        if tag
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_TAGS])


def _round(arrays: Mapping[str, np.ndarray]) -> dict[str, Stored]:
    """f16 where it holds all tensors of a module well enough, for factors of two types are slower to use."""
    modules: dict[str, list[str]] = {}
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise AdapterError(
                f"tensor {shown(name)} holds NaN or infinity; resume from an earlier checkpoint, with a lower "
                "learning rate"
            )
        if values.ndim > 0 and "dora_scale" not in name and "magnitude" not in name:
            modules.setdefault(_module_of(name), []).append(name)
    half = {name for names in modules.values() if all(_fits_half(arrays[name]) for name in names) for name in names}
    return {name: stored(values, "f16" if name in half else "f32", name) for name, values in arrays.items()}


def _module_of(name: str) -> str:
    """ "a.b" of "a.b.lora_down.weight" and of "a.b.hada_w1_a"."""
    return name.rpartition(".lora_")[0] or name.rpartition(".")[0]


def _fits_half(values: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16).astype(np.float32)
    return bool(np.isfinite(rounded).all()) and _norm(rounded - values) <= _ROUNDING * _norm(values)


def _norm(values: np.ndarray) -> float:
    return float(np.linalg.norm(values.astype(np.float64, copy=False)))

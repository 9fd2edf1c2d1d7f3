"""The adapter file of a training: complete or absent, the same bytes for the same training, and checked.

It contains no path, date or time of day. The ss_* entries are those of kohya's sd-scripts (train_network.py),
modelspec.* follows https://github.com/Stability-AI/ModelSpec, and `lorablend.made_by` has every setting as JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lorablend.adapters import Adapter, load_adapter
from lorablend.adapters.errors import AdapterError, ResourceError, TrainError
from lorablend.adapters.files.atomic import atomic_write
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

# Fractions of a tensor's Frobenius norm. Rounding normal numbers to f16 costs 2e-4; numbers below 6e-5, which a young
# training has, would lose more, and stay f32.
_ROUNDING = 4e-4
_TOLERANCE = 1e-3  # of a change's Frobenius norm: rounding of up to four factors
_CANCELLATION = 1e-6  # of the weight's Frobenius norm: DoRA's change is a difference of two f32 weights
_MOST_TAGS = 1000


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """The facts of a training that its configuration does not determine.

    Attributes:
        base_name: A Hub id, or the name of a folder or file; never a path.
        base_sha256: In hex.
        resolution: Side in pixels of a square with the area that was trained at.
        steps: Optimizer steps so far, of total_steps.
        pictures: Number of training pictures, without repeats.
        batch: Pictures per step, over all devices and accumulated batches.
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
    """Write the network to `path`, which replaces an existing file once the new one has passed every check.

    The factors are f16, unless that would lose too much of them; magnitudes and alphas are f32.

    Args:
        sampler: Draws with the file, to check that the picture differs from the base model's; None skips that check.

    Raises:
        TrainError: The adapter is of no use.
        ResourceError: The file cannot be written.
    """
    arrays, entries = network.tensors(config.keys)
    try:
        tensors = _round(arrays)
    except AdapterError as error:
        raise TrainError(f"{shown(path.name)}: {error}") from error
    metadata = with_hashes(metadata_of(path.stem, network, config, dataset, facts) | entries, tensors)
    try:
        with atomic_write(path) as part:
            write_file(part, tensors, metadata)
            check_adapter(part, network, path.name)
            # absolute, for a bare name without the usual suffix would be looked up in the library
            if sampler is not None and not sampler.differs(part.absolute()):
                raise TrainError(
                    f"{shown(path.name)} does not change the picture: {facts.steps} steps at learning rate "
                    f"{config.learning_rate:g} have taught it nothing; train longer or raise the learning rate"
                )
    except OSError as error:
        raise ResourceError(f"{shown(path)} could not be written: {error.strerror or error}") from error


def check_adapter(path: Path, network: Network, name: str) -> Adapter:
    """Load the file as its users will, and compare each change with the trained module's own. Raises TrainError."""
    try:
        adapter = load_adapter(path)
    except AdapterError as error:
        raise TrainError(f"{shown(name)} cannot be used: {str(error).partition(': ')[2] or error}") from error
    if adapter.covered != adapter.tensor_count or adapter.deltas.keys() != set(network.modules):
        raise TrainError(
            f"{shown(name)}: only {adapter.covered} of {adapter.tensor_count} tensors and {len(adapter.deltas)} of "
            f"{len(network.modules)} modules can be read; this is a fault of lorablend, please report it"
        )
    if adapter.base_model not in (network.family, "unknown"):
        raise TrainError(
            f"{shown(name)} loads as an adapter for {adapter.base_model}, but was trained on {network.family}; this is "
            "a fault of lorablend, please report it"
        )
    for module, (weight, change) in network.changes():
        error = _norm(adapter.deltas[module].dense(weight) - change)
        # written so that a NaN fails
        if not error <= _TOLERANCE * _norm(change) + _CANCELLATION * _norm(weight) * (network.algorithm == "dora"):
            raise TrainError(
                f"{shown(name)}: {' '.join(module)} is off by {error / max(_norm(change), 1e-30):.1e}, more than the "
                f"{_TOLERANCE:g} that rounding explains; this is a fault of lorablend, please report it"
            )
    return adapter


def metadata_of(
    title: str, network: Network, config: TrainConfig, dataset: DataSet, facts: TrainingFacts
) -> dict[str, str]:
    """The metadata that does not depend on the tensors; unknown entries are left out."""
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
    """Count the captions that each tag occurs in, the most frequent tag first."""
    counts = Counter(
        tag
        for forms in captions
        for form in forms
        for tag in dict.fromkeys(part.strip() for part in form.split(","))
        if tag
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_TAGS])


def _round(arrays: Mapping[str, np.ndarray]) -> dict[str, Stored]:
    """Round a module to f16 if that is exact enough for all its tensors; factors of two types are slower to use."""
    modules: dict[str, list[str]] = {}
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise AdapterError(
                f"tensor {shown(name)} contains NaN or infinity; resume from an earlier checkpoint, with a lower "
                "learning rate"
            )
        if values.ndim > 0 and "dora_scale" not in name and "magnitude" not in name:
            modules.setdefault(_module_of(name), []).append(name)
    half = {name for names in modules.values() if all(_fits_half(arrays[name]) for name in names) for name in names}
    return {name: stored(values, "f16" if name in half else "f32", name) for name, values in arrays.items()}


def _module_of(name: str) -> str:
    """The module of a tensor: "a.b" for "a.b.lora_down.weight" and "a.b.hada_w1_a"."""
    return name.rpartition(".lora_")[0] or name.rpartition(".")[0]


def _fits_half(values: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16).astype(np.float32)
    return bool(np.isfinite(rounded).all()) and _norm(rounded - values) <= _ROUNDING * _norm(values)


def _norm(values: np.ndarray) -> float:
    return float(np.linalg.norm(values.astype(np.float64, copy=False)))

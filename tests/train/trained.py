"""Networks as if they were trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lorablend.adapters.files.write import stored, write_file
from lorablend.train.base import BaseNetworks, load_base
from lorablend.train.config import TrainConfig
from lorablend.train.data.examples import Example
from lorablend.train.data.layouts import DataSet
from lorablend.train.networks import Network, attach
from lorablend.train.output import TrainingFacts

ALGORITHMS = ("lora", "dora", "locon", "loha", "lokr")


def config(**settings: Any) -> TrainConfig:
    """A configuration with rank 4 and alpha 6, which differs from the rank, so that a mix-up shows."""
    own = {"data": Path("pictures"), "model": "tiny", "out": Path("x.safetensors")}
    return TrainConfig(**own | {"rank": 4, "alpha": 6.0, "learning_rate": 1e-4} | settings)


def trained(source: Path | BaseNetworks, *, size: float = 0.05, **settings: Any) -> tuple[BaseNetworks, Network]:
    """A model with a network, to whose numbers noise of this size is added; all are exact in f16."""
    import torch

    models = load_base(str(source)) if isinstance(source, Path) else source
    network = attach(models, config(**settings))
    generator = torch.Generator().manual_seed(1)
    for group in network.parameters():
        for parameter in group["params"]:
            noisy = parameter.data + torch.randn(parameter.shape, generator=generator) * size
            parameter.data = noisy.half().float()
    return models, network


def pipeline_of(models: BaseNetworks) -> Any:
    """diffusers' own pipeline of the networks, including the trained modules."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    parts = {
        "unet": models.unet,
        "vae": models.vae,
        "scheduler": EulerDiscreteScheduler.from_config(dict(models.base.scheduler)),
        "text_encoder": models.text_encoders[0],
        "tokenizer": models.tokenizers[0],
    }
    if models.family == "sdxl":
        parts |= {"text_encoder_2": models.text_encoders[1], "tokenizer_2": models.tokenizers[1]}
        pipeline = StableDiffusionXLPipeline(**parts)
    else:
        pipeline = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def write(path: Path, network: Network, keys: Any = "kohya") -> Path:
    """Write the network's tensors in f32, without checks."""
    arrays, metadata = network.tensors(keys)
    write_file(path, {name: stored(values, "f32", name) for name, values in arrays.items()}, metadata)
    return path


def dataset(*captions: str, trigger: str | None = None) -> DataSet:
    """A data set of pictures that are never opened."""
    examples = tuple(
        Example(Path(f"/home/someone/pictures/{index}.png"), (caption,), 1, (64, 64), None, trigger)
        for index, caption in enumerate(captions)
    )
    return DataSet(examples, "a folder", trigger, (), (), Path("/home/someone/pictures"))


def facts(**changes: Any) -> TrainingFacts:
    """The facts of a training of the small SDXL-shaped model."""
    return TrainingFacts(
        **{
            "base_name": "tiny",
            "base_sha256": "ab" * 32,
            "prediction_type": "epsilon",
            "resolution": 64,
            "steps": 30,
            "total_steps": 30,
            "warmup_steps": 2,
            "pictures": 3,
            "batch": 4,
            "accumulation": 1,
            "precision": "f32",
            "gradient_checkpointing": False,
        }
        | changes
    )


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """‖ours − theirs‖ / ‖theirs‖."""
    return float(np.linalg.norm(ours.astype(np.float64) - theirs) / np.linalg.norm(theirs.astype(np.float64)))

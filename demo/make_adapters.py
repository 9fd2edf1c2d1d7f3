"""Train the demo model's adapters, each on 40 drawn pictures, by the project's own trainer.

    python -m lorablend.demo.make_adapters FOLDER [--only comic …]        (needs lorablend[train])

FOLDER gets the pictures, the adapters, and a picture drawn with each; good ones belong into shipped/adapters. Together
they cover the formats that people meet. Files that FOLDER has already are not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lorablend.adapters.files.atomic import atomic_write
from lorablend.adapters.files.file import read_file
from lorablend.adapters.files.write import write_file
from lorablend.demo.data_set import draw_data_set
from lorablend.demo.subjects import SUBJECTS
from lorablend.engine import Pipeline
from lorablend.shipped import adapters_dir
from lorablend.train import TrainConfig, train

__all__ = ["ADAPTERS", "draw_previews", "train_adapter", "write_trigger"]

PICTURES = 40
SEED = 7  # of the data sets; not the default, so that a user who tries the trainer draws other pictures
_COMMON = {"model": "demo", "steps": 800, "batch": 8, "learning_rate": 2e-3, "sample_every": 0, "checkpoints": 1}
ADAPTERS = MappingProxyType(
    {
        "comic": {"algorithm": "lora", "rank": 8},
        "blueprint": {"algorithm": "lora", "rank": 8, "keys": "diffusers", "learning_rate": 3e-3, "steps": 1100},
        "watercolour": {"algorithm": "locon", "rank": 5, "learning_rate": 1.5e-3, "steps": 600},
        # at rank 3 even the narrowest layer's larger matrix is factored, so that the LoKr is live
        "glass": {"algorithm": "lokr", "rank": 3, "learning_rate": 4e-3},
        # The style is nearly black by day too, which the noise offset teaches; without it daylight stays grey.
        "neon": {
            "algorithm": "dora",
            "rank": 8,
            "keys": "diffusers",
            "learning_rate": 6e-3,
            "steps": 1000,
            "noise_offset": 0.1,
        },
        "pencil": {"algorithm": "loha", "rank": 4, "learning_rate": 1.5e-3, "steps": 900},
        "riso": {"algorithm": "locon", "rank": 5, "learning_rate": 1e-3, "steps": 400},
        "chalk": {"algorithm": "lora", "rank": 8},
        "robot": {"algorithm": "lora", "rank": 8, "steps": 700},
        "cat": {"algorithm": "lora", "rank": 8, "keys": "diffusers", "learning_rate": 1e-3, "steps": 400},
    }
)
"""The settings of each training, by the name of its style or subject."""


def train_adapter(name: str, folder: Path, **changes: Any) -> Path:
    """Draw the pictures of a style or a subject to folder/name, and train folder/name.safetensors on them.

    Args:
        changes: Override the settings in ADAPTERS.
    """
    data, out = folder / name, folder / f"{name}.safetensors"
    if not data.exists():
        kind = "subject" if name in SUBJECTS else "style"
        draw_data_set(data, PICTURES, seed=SEED, **{kind: name})
    train(TrainConfig.model_validate({**_COMMON, **ADAPTERS[name], "data": data, "out": out, **changes}), say=print)
    return out


def write_trigger(name: str, path: Path) -> None:
    """Write the trigger phrase into the file's metadata; the tensors stay the same, byte for byte.

    The trainer does not get it, for it would put a subject's name in front of each caption that has only its plural.
    """
    file = read_file(path)
    phrase = name if name in SUBJECTS else f"in {name} style"
    tensors = {key: (tensor.dtype, tensor.array) for key, tensor in file.tensors.items()}
    with atomic_write(path) as part:
        write_file(part, tensors, {**file.metadata, "modelspec.trigger_phrase": phrase})


def draw_previews(folder: Path, names: Iterable[str]) -> None:
    """Draw each adapter's prompt in showcase.json to folder/name.jpg, unless that exists."""
    showcase: dict[str, Any] = json.loads((adapters_dir() / "showcase.json").read_text(encoding="utf-8"))
    prompts = {entry["adapter"]: entry["prompt"] for entry in showcase["adapters"]}
    pipeline = Pipeline("demo")
    for name in names:
        picture = folder / f"{name}.jpg"
        if not picture.exists():
            result = pipeline.generate(
                prompts[name],
                blend=[(folder / f"{name}.safetensors", 1.0)],
                steps=showcase["steps"],
                guidance_scale=showcase["guidance"],
                seed=showcase["seed"],
            )
            with atomic_write(picture) as part:
                result.images[0].save(part, "JPEG", quality=85)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=sorted(ADAPTERS), default=list(ADAPTERS))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        path = arguments.folder / f"{name}.safetensors"
        if not path.exists():
            train_adapter(name, arguments.folder)
        write_trigger(name, path)
    draw_previews(arguments.folder, arguments.only)


if __name__ == "__main__":
    main()

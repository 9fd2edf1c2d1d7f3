"""Train the demo model's adapters, each on 40 drawn pictures, by the project's own trainer.

    python -m lorablend.demo.make_adapters FOLDER [--only comic …]        (needs lorablend[train])

FOLDER gets the pictures, and the adapters: those that are good belong into adapters/ beside this file. Between them
they are in the formats that people meet.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lorablend.demo.data_set import draw_data_set
from lorablend.demo.subjects import SUBJECTS
from lorablend.train import TrainConfig, train

__all__ = ["ADAPTERS", "train_adapter"]

PICTURES = 40
SEED = 7  # of the data sets; others than anybody draws who tries the trainer
_COMMON = {"model": "demo", "steps": 800, "batch": 8, "learning_rate": 2e-3, "sample_every": 0, "checkpoints": 1}
ADAPTERS = MappingProxyType(
    {
        "comic": {"algorithm": "lora", "rank": 8},
        "blueprint": {"algorithm": "lora", "rank": 8, "keys": "diffusers", "learning_rate": 3e-3, "steps": 1100},
        "watercolour": {"algorithm": "locon", "rank": 5, "learning_rate": 1.5e-3, "steps": 600},
        # of rank 3 even the narrowest layer's larger matrix is factored: such a LoKr is live
        "glass": {"algorithm": "lokr", "rank": 3, "learning_rate": 4e-3},
        # nearly black by day as well, which the offset teaches; without it daylight stays grey
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
"""Name of a style or a subject -> settings of its training."""


def train_adapter(name: str, folder: Path, **changes: Any) -> Path:
    """Draw the pictures of a style or a subject to folder/name, and train on them; the file is folder/name.safetensors.

    changes: to the settings in ADAPTERS.
    """
    data, out = folder / name, folder / f"{name}.safetensors"
    if not data.exists():
        what = "subject" if name in SUBJECTS else "style"
        draw_data_set(data, PICTURES, seed=SEED, **{what: name})
    train(TrainConfig.model_validate({**_COMMON, **ADAPTERS[name], "data": data, "out": out, **changes}), say=print)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=sorted(ADAPTERS), default=list(ADAPTERS))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        train_adapter(name, arguments.folder)


if __name__ == "__main__":
    main()

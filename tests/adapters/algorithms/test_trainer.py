"""What kohya's header says about a network, read from every form that it has had."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.algorithms.trainer import without_trainer
from tests.adapter_files import Stored, write_tensors
from tests.adapters.algorithms.deltas import Q, normal

LYCORIS = "lycoris.kohya"
SD_SCRIPTS = "networks.lora"
RANK = 8


def stored(algorithm: str, alpha: float) -> dict[str, Stored]:
    shapes = {
        "lora": {"lora_down.weight": (RANK, 32), "lora_up.weight": (32, RANK)},
        "glora": {
            f"{name}.weight": (RANK, 32) if name in ("a2", "b2") else (32, RANK) for name in ("a1", "a2", "b1", "b2")
        },
        "whole lokr": {"lokr_w1": (4, 4), "lokr_w2": (8, 8)},
    }[algorithm]
    key = f"lora_unet_{Q.replace('.', '_')}"
    tensors: dict[str, Stored] = {f"{key}.{role}": ("F32", normal(*shape)) for role, shape in shapes.items()}
    return tensors | {f"{key}.alpha": ("F32", np.float32(alpha).reshape(()))}


def header(module: str | None, arguments: Any) -> dict[str, str]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    named = {} if module is None else {"ss_network_module": module}
    return {**named, "ss_network_dim": str(RANK), "ss_network_args": text}


# (algorithm of the tensors, alpha, module, arguments, scale, start of the warning)
CASES = [
    ("lora", 4, LYCORIS, {"algo": "lora"}, 0.5, ""),
    ("lora", 4, LYCORIS, {"algo": "lora", "rs_lora": "True"}, 0.5, ""),  # LyCORIS has multiplied the alpha
    ("lora", 4, LYCORIS, {"algo": "dylora", "block_size": "2"}, 1, ""),
    ("lora", 4, LYCORIS, {"algo": "DyLoRA"}, 2, ""),  # blocks of 4
    ("lora", 4, LYCORIS, {"algo": "dylora", "block_size": "3"}, 0.5, ""),  # LyCORIS could not have trained it
    ("lora", 4, LYCORIS, {"algo": "dylora", "preset": "attn-mlp"}, 2, ""),
    (
        "lora",
        4,
        LYCORIS,
        {"algo": "dylora", "preset": "mine.toml"},
        0.5,
        "the header says DyLoRA with a preset of its own",
    ),
    ("lora", 4, "networks.dylora", {"unit": "4"}, 0.5, ""),  # kohya's own has alpha / rank
    ("lora", 4, SD_SCRIPTS, {"conv_dim": "4"}, 0.5, ""),
    ("lora", 4, SD_SCRIPTS, {"rs_lora": "True"}, 0.5, "the header says that networks.lora trained with rs_lora"),
    ("lora", 4, SD_SCRIPTS, "{", 0.5, ""),
    ("lora", 4, None, "[]", 0.5, ""),
    ("glora", 4, LYCORIS, {"algo": "glora", "rs_lora": "True"}, 4 / math.sqrt(RANK), ""),
    ("glora", 4, LYCORIS, {"algo": "glora", "rs_lora": "0"}, 4 / math.sqrt(RANK), ""),  # so LyCORIS reads it
    ("glora", 4, LYCORIS, {"algo": "glora", "rs_lora": "False"}, 0.5, ""),
    ("glora", 4, LYCORIS, {"algo": "glora"}, 0.5, ""),
    ("glora", 4, None, "null", 0.5, "GLoRA without ss_network_args"),
    ("whole lokr", RANK**1.5, LYCORIS, {"algo": "lokr", "rs_lora": "True"}, math.sqrt(RANK), ""),
    ("whole lokr", 27, LYCORIS, {"algo": "lokr", "rs_lora": "True", "conv_dim": "9"}, 3, ""),
    (
        "whole lokr",
        RANK,
        LYCORIS,
        {"algo": "lokr", "rs_lora": "True"},
        1,
        "LoKr of whole matrices with alpha 8: applied",
    ),
    ("whole lokr", RANK, LYCORIS, {"algo": "lokr"}, 1, ""),
    ("whole lokr", 1, LYCORIS, {"algo": "lokr"}, 1, "LoKr of whole matrices with alpha 1 and ss_network_dim 8"),
    ("whole lokr", RANK**1.5, None, "null", 1, "LoKr of whole matrices with alpha 22.6274: applied"),
    ("whole lokr", 9999999999, LYCORIS, {"algo": "lokr"}, 1, ""),  # ai-toolkit's
]


@pytest.mark.parametrize(("algorithm", "alpha", "module", "arguments", "scale", "warning"), CASES, ids=str)
def test_the_scale(
    tmp_path: Path, algorithm: str, alpha: float, module: str | None, arguments: Any, scale: float, warning: str
) -> None:
    metadata = header(module, arguments)
    adapter = load_adapter(write_tensors(tmp_path / "x.safetensors", stored(algorithm, alpha), metadata))
    (delta,) = adapter.deltas.values()
    assert delta.scale == pytest.approx(scale, rel=1e-5)
    assert len(adapter.warnings) == bool(warning)
    assert not warning or adapter.warnings[0].startswith(warning)


def test_the_header_of_a_file_whose_alphas_say_all() -> None:
    entries = header(LYCORIS, {"algo": "dylora", "block_size": "2", "rs_lora": "True", "preset": "full"})
    assert json.loads(without_trainer(entries)["ss_network_args"]) == {"algo": "lora", "preset": "full"}
    for unchanged in (header(LYCORIS, {"algo": "loha"}), header(None, "null"), {"ss_network_dim": "4"}):
        assert without_trainer(unchanged) == unchanged

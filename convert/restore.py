"""The way back: a diffusers folder from a converted one, for what needs torch's networks, such as training."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import ModelError
from lorablend.convert.extras import require_extra
from lorablend.engine.graph.ir import Ir
from lorablend.engine.model_folder import ModelFolder

__all__ = ["restore"]

# diffusers' folder -> where its networks lie in a converted folder; the first one has the configuration.
_NETWORKS = {
    "text_encoder": ("text_encoder",),
    "text_encoder_2": ("text_encoder_2",),
    "unet": ("unet",),
    "vae": ("vae_encoder", "vae_decoder"),
}


def restore(model_dir: Path, out: Path) -> None:
    """Write the diffusers folder `out`, which must not exist, from an OpenVINO model folder with fp16 or fp32 weights.

    Its numbers are the converted ones, in fp16 where they are. It appears whole or not at all. Raises ModelError for
    weights in 8 bits, which have lost what was converted, and MissingExtraError without lorablend[convert].
    """
    require_extra("convert")
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    model = ModelFolder(model_dir)
    bars = is_progress_bar_enabled()  # of one file each: not worth a line
    disable_progress_bar()
    work = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        work.mkdir(parents=True)
        shutil.copyfile(model.path / "model_index.json", work / "model_index.json")
        for part in ("scheduler", *model.tokenizers):
            files = (file for file in (model.path / part).iterdir() if not file.name.startswith("openvino"))
            (work / part).mkdir()
            for file in files:
                shutil.copyfile(file, work / part / file.name)
        for name, parts in _NETWORKS.items():
            if (model.path / parts[0]).exists():
                _network(name, [model.path / part for part in parts]).save_pretrained(work / name)
        os.replace(work, out)
    finally:
        if bars:
            enable_progress_bar()
        shutil.rmtree(work, ignore_errors=True)


def _network(name: str, folders: Sequence[Path]) -> Any:
    import torch

    network = _empty(name, folders[0])
    state, half = network.state_dict(), False
    for folder in folders:
        ir = Ir(folder / "openvino_model.xml")
        for parameter in ir.shapes.keys() & state.keys():
            weight = ir.weight(parameter)
            if weight.kind != "plain":
                raise ModelError(
                    f"{folder} holds weights in 8 bits, which have lost what was converted; "
                    "train on the model it was converted from"
                )
            state[parameter].copy_(torch.from_numpy(ir.read(parameter)))
            half |= weight.values.element_type == "f16"
            del state[parameter]
    # What multiplies by one or adds zero is not in the IR: layers that nobody trained. In a new network it is the same.
    idle = {p for p in state if state[p].dim() == 1 and (state[p] == (1 if p.endswith(".weight") else 0)).all()}
    if missing := sorted(state.keys() - idle):
        raise ModelError(f"{folders[0]} lacks {missing[0]}; convert the model again")
    return network.half() if half else network


def _empty(name: str, folder: Path) -> Any:
    """With its own first numbers."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    if name in ("unet", "vae"):
        kind: Any = UNet2DConditionModel if name == "unet" else AutoencoderKL
        return kind.from_config(kind.load_config(folder))
    kind = CLIPTextModel if name == "text_encoder" else CLIPTextModelWithProjection
    return kind(CLIPTextConfig.from_pretrained(folder))

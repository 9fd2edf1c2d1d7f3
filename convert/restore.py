"""The reverse of a conversion: a diffusers folder from an OpenVINO one, for training, which needs torch's networks."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import ModelError
from lorablend.adapters.files.atomic import atomic_write
from lorablend.convert.extras import require_extra
from lorablend.engine.graph.ir import Ir
from lorablend.engine.model_folder import ModelFolder

__all__ = ["restore"]

# diffusers' folder -> the folders of its networks in a converted model; the first one has the configuration.
_NETWORKS = {
    "text_encoder": ("text_encoder",),
    "text_encoder_2": ("text_encoder_2",),
    "unet": ("unet",),
    "vae": ("vae_encoder", "vae_decoder"),
}


def restore(model_dir: Path, out: Path) -> None:
    """Write the diffusers folder `out`, which must not exist, from an OpenVINO model folder with fp16 or fp32 weights.

    The weights keep their values and their type. The folder appears completely or not at all.

    Raises:
        ModelError: The weights are in 8 bits, from which the original ones cannot be restored.
        MissingExtraError: lorablend[convert] is not installed.
    """
    require_extra("convert")
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    model = ModelFolder(model_dir)
    bars = is_progress_bar_enabled()  # each would show one file
    disable_progress_bar()
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(out) as folder:
            folder.mkdir()
            shutil.copyfile(model.path / "model_index.json", folder / "model_index.json")
            for part in ("scheduler", *model.tokenizers):
                files = (file for file in (model.path / part).iterdir() if not file.name.startswith("openvino"))
                (folder / part).mkdir()
                for file in files:
                    shutil.copyfile(file, folder / part / file.name)
            for name, parts in _NETWORKS.items():
                if (model.path / parts[0]).exists():
                    _network(name, [model.path / part for part in parts]).save_pretrained(folder / name)
    finally:
        if bars:
            enable_progress_bar()


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
                    f"{folder} has weights in 8 bits, from which the original ones cannot be restored; "
                    "train on the model it was converted from"
                )
            state[parameter].copy_(torch.from_numpy(ir.read(parameter)))
            half |= weight.values.element_type == "f16"
            del state[parameter]
    # Layers that multiply by one or add zero, for they were never trained, are not in the IR; a new network has them.
    idle = {p for p in state if state[p].dim() == 1 and (state[p] == (1 if p.endswith(".weight") else 0)).all()}
    if missing := sorted(state.keys() - idle):
        raise ModelError(f"{folders[0]} lacks {missing[0]}; convert the model again")
    return network.half() if half else network


def _empty(name: str, folder: Path) -> Any:
    """Make the network with its initial numbers."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    if name in ("unet", "vae"):
        kind: Any = UNet2DConditionModel if name == "unet" else AutoencoderKL
        return kind.from_config(kind.load_config(folder))
    kind = CLIPTextModel if name == "text_encoder" else CLIPTextModelWithProjection
    return kind(CLIPTextConfig.from_pretrained(folder))

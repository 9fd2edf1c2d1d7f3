"""Compress weights to 8 bits: of a network that was just exported, or of a whole converted model folder."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import ModelError, ResourceError
from lorablend.adapters.files.atomic import atomic_write
from lorablend.convert.extras import require_extra
from lorablend.engine.model_folder import ModelFolder

__all__ = ["compress", "compress_network", "is_compressed"]

_NETWORKS = ("text_encoder", "text_encoder_2", "unet", "vae_encoder", "vae_decoder")
_RECORD = "lorablend.json"


def compress(model_dir: Path, out: Path, *, progress: Callable[[str, int, int], None] | None = None) -> None:
    """Write a copy of an OpenVINO model folder with its weights in 8 bits, equal to `convert` with weights="int8".

    Args:
        out: Must not exist or be empty; it appears completely or not at all.
        progress: Called with (network, done, total) before each network and at the end.

    Raises:
        ModelError: The model is in 8 bits already, or `out` is not empty.
        ResourceError: The disk has no room for the copy.
        MissingExtraError: lorablend[convert] is not installed.
    """
    require_extra("convert")
    report = progress or (lambda network, done, total: None)
    model = ModelFolder(model_dir)
    if is_compressed(model):
        raise ModelError(f"{model_dir} has its weights in 8 bits already; compress another model")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} exists and is not empty; give a new folder")
    size = sum(file.stat().st_size for file in model.path.rglob("*") if file.is_file())
    free = shutil.disk_usage(next(folder for folder in out.absolute().parents if folder.exists())).free
    if free < 1.5 * size:  # while a network is compressed, there are two copies of it
        raise ResourceError(
            f"{out} needs {1.5 * size / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB is free; free up space"
        )
    with atomic_write(out) as folder:
        shutil.copytree(model.path, folder)
        networks = [name for name in _NETWORKS if name in model.components]
        for done, name in enumerate(networks):
            report(name, done, len(networks))
            with redirect_stdout(io.StringIO()):  # NNCF prints tables to stdout, which is for results
                compress_network(folder / name / "openvino_model.xml")
        file = folder / _RECORD
        record: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
        file.write_text(json.dumps({**record, "weights": "int8"}, indent=2) + "\n", encoding="utf-8")
        ModelFolder(folder)  # checks that the engine can read it
        report("done", len(networks), len(networks))


def is_compressed(model: ModelFolder) -> bool:
    """Whether any weight of the model's UNet is in 8 bits."""
    unet = model.graphs["unet"]
    return any(unet.weight(name).kind != "plain" for name in unet.shapes)


def compress_network(xml: Path) -> None:
    """Compress a network's weights in place: i8 with one f16 scale per output channel.

    Symmetric, for these weights are centred on zero, so that a zero point would gain little; and without one a weight
    is a single product, which `bake` can read, change and write again.
    """
    os.environ.setdefault("CI", "true")  # OpenVINO's and NNCF's telemetry has no other switch
    import nncf
    import openvino

    model = nncf.compress_weights(openvino.Core().read_model(xml), mode=nncf.CompressWeightsMode.INT8_SYM)
    compressed = xml.with_name("compressed.xml")
    openvino.save_model(model, compressed)
    del model  # it maps the .bin that is replaced next
    for suffix in (".xml", ".bin"):
        compressed.with_suffix(suffix).replace(xml.with_suffix(suffix))

"""Weights in 8 bits: of a network that was just exported, and of a whole model folder that was converted before."""

from __future__ import annotations

import io
import json
import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import ModelError, ResourceError
from lorablend.convert.extras import require_extra
from lorablend.engine.model_folder import ModelFolder

__all__ = ["compress", "compress_network", "is_compressed"]

_NETWORKS = ("text_encoder", "text_encoder_2", "unet", "vae_encoder", "vae_decoder")
_RECORD = "lorablend.json"


def compress(model_dir: Path, out: Path, *, progress: Callable[[str, int, int], None] | None = None) -> None:
    """Write a copy of an OpenVINO model folder with its weights in 8 bits, the same as `convert` with weights="int8".

    progress(network, done, total) is called before each network and at the end. The copy appears whole or not at all;
    `out` must not exist or be empty. Raises ModelError for a model that is in 8 bits already and for `out`,
    ResourceError for too little disk, MissingExtraError without lorablend[convert].
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
    if free < 1.5 * size:  # a network is there twice while it is compressed
        raise ResourceError(f"{out} needs {1.5 * size / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB is free; free some")
    work = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        shutil.copytree(model.path, work)
        networks = [name for name in _NETWORKS if name in model.components]
        for done, name in enumerate(networks):
            report(name, done, len(networks))
            with redirect_stdout(io.StringIO()):  # NNCF prints tables, where others look for results
                compress_network(work / name / "openvino_model.xml")
        record: dict[str, Any] = json.loads((work / _RECORD).read_text("utf-8")) if (work / _RECORD).exists() else {}
        (work / _RECORD).write_text(json.dumps({**record, "weights": "int8"}, indent=2) + "\n", encoding="utf-8")
        ModelFolder(work)  # what was written is what the engine reads
        report("done", len(networks), len(networks))
        if out.exists():
            out.rmdir()
        work.replace(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def is_compressed(model: ModelFolder) -> bool:
    """Whether any of its UNet's weights is in 8 bits."""
    unet = model.graphs["unet"]
    return any(unet.weight(name).kind != "plain" for name in unet.shapes)


def compress_network(xml: Path) -> None:
    """Weights to 8 bits, in place: i8 with one f16 scale per output channel.

    Symmetric: these weights lie about zero, so a zero point would gain little; and without one a weight is a single
    product, which `bake` can read, change and write again.
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

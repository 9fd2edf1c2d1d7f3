"""Bake: a model folder with a blend added to its weights, for any OpenVINO GenAI program."""

import json
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lorablend.adapters import Adapter, Blend, resolve_blend
from lorablend.adapters.errors import ModelError, ResourceError
from lorablend.engine.attach import check_attach
from lorablend.engine.graph.ir import rewrite_weights
from lorablend.engine.model_folder import ModelFolder
from lorablend.engine.parts import Changes, changes_of, parts_to_bake, refuse_unbakeable

__all__ = ["bake", "write_model"]

_RECORD = "lorablend.json"
_SPARE = 64 * 2**20  # bytes left free on the disk


def bake(
    model_dir: Path | str,
    blend: Blend | Iterable[tuple[Adapter | Path | str, float]],
    out_dir: Path | str,
    *,
    lora_dir: Path | str | None = None,
) -> None:
    """Write `model_dir` to `out_dir` with W + Σ weight · ΔW in place of each parameter W that the blend changes.

    Every ΔW is taken from the original W; the sum is f32, rounded once to the folder's own type. 8-bit weights are
    dequantized, changed and quantized again as NNCF does it. An untouched weight keeps its bytes. All files are copies,
    so that the folder stands alone. It appears whole or not at all. lorablend.json in it records the blend.

    Raises:
        AdapterError, BaseModelError, BlendError: the blend is not for this model.
        ModelError: `model_dir` is not a model, or `out_dir` is not new or empty.
        ResourceError: not enough disk space.
    """
    model = ModelFolder(Path(model_dir))
    blend = resolve_blend(blend, lora_dir)
    refuse_unbakeable(blend)
    check_attach(blend, model.parameters, model.family)
    write_model(model, changes_of(parts_to_bake(blend, model.parameters, None)), Path(out_dir), blend)


def write_model(model: ModelFolder, changes: Changes, out_dir: Path, blend: Blend, *, link: bool = False) -> None:
    """Write the model with some weights changed, as `bake` says.

    link: hard links instead of copies of the files that nothing touches, where the disk can; for a cache, which forgets
    a model that has changed.
    """
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise ModelError(f"{out_dir} exists and is not empty; give a new folder")
    if model.path.resolve() in out_dir.resolve().parents:
        raise ModelError(f"{out_dir} is inside the model's own folder {model.path}; give another place")
    rewritten = {file for name in changes for file in _files(model.component(name))}
    _check_space(rewritten if link else model.path.rglob("*"), out_dir)
    work = out_dir.with_name(f".{out_dir.name}.{uuid.uuid4().hex}")
    try:
        work.mkdir(parents=True)
        for file in sorted(model.path.rglob("*")):
            target = work / file.relative_to(model.path)
            if file.is_dir():
                target.mkdir()
            elif file not in rewritten and target != work / _RECORD:
                _link(file, target) if link else shutil.copy2(file, target)
        for name, weights in changes.items():
            xml = model.component(name)
            rewrite_weights(xml, work / xml.relative_to(model.path), weights)
        record = json.dumps(_record(model.path, blend), indent=2, ensure_ascii=False)
        (work / _RECORD).write_text(record + "\n", encoding="utf-8")
        if out_dir.exists():
            out_dir.rmdir()
        work.replace(out_dir)
    except OSError as error:
        raise ResourceError(f"{out_dir} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _record(path: Path, blend: Blend) -> dict[str, Any]:
    """The source folder's lorablend.json with this blend added after any that it already had baked in."""
    source = path / _RECORD
    try:
        record: dict[str, Any] = json.loads(source.read_text(encoding="utf-8")) if source.exists() else {}
    except ValueError as error:
        raise ModelError(f"{source} is not readable as JSON: {error}; delete it") from error
    items = [{"name": item.adapter.name, "weight": item.weight, "sha256": item.adapter.sha256} for item in blend.items]
    return {**record, "blend": [*record.get("blend", []), *items]}


def _files(xml: Path) -> tuple[Path, Path]:
    return xml, xml.with_suffix(".bin")


def _check_space(written: Iterable[Path], out_dir: Path) -> None:
    need = _SPARE + sum(file.stat().st_size for file in written if file.is_file())
    free = shutil.disk_usage(next(folder for folder in out_dir.absolute().parents if folder.exists())).free
    if free < need:
        raise ResourceError(
            f"{out_dir} needs {need / 1e9:.1f} GB, {free / 1e9:.1f} GB is free; free some or choose another disk"
        )


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)

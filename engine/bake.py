"""Baking: a model folder with a blend added to its weights, for any OpenVINO GenAI program."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lorablend.adapters import Adapter, Blend, resolve_blend
from lorablend.adapters.errors import ModelError, ResourceError
from lorablend.adapters.files.atomic import atomic_write
from lorablend.engine.attach import check_attach
from lorablend.engine.genai_scheduler import genai_scheduler
from lorablend.engine.graph.ir import rewrite_weights
from lorablend.engine.model_folder import ModelFolder, refuse_statistics
from lorablend.engine.parts import Changes, changes_of, parts_to_bake, refuse_unbakeable

__all__ = ["bake", "write_model"]

_RECORD = "lorablend.json"
_SPARE = 64 * 2**20  # bytes to leave free on the disk


def bake(
    model_dir: Path | str,
    blend: Blend | Iterable[tuple[Adapter | Path | str, float]],
    out_dir: Path | str,
    *,
    lora_dir: Path | str | None = None,
) -> tuple[str, ...]:
    """Write `model_dir` to `out_dir` with W + Σ weight · ΔW in place of each parameter W that the blend changes.

    Every ΔW is computed from the original W. The sum is f32, rounded once to the folder's own type. 8-bit weights are
    dequantized, changed and quantized again as NNCF does it. All other weights keep their bytes. Tokenizers are
    made exact, see `clip_tokenizer`. All files are copies, so the folder stands alone. It appears complete or not at
    all. Its lorablend.json records the blend. Its scheduler_config.json is another one where OpenVINO GenAI cannot
    follow the model's own, see `genai_scheduler`.

    Args:
        model_dir: A model folder that `lorablend convert` wrote.
        blend: A `Blend`, or (adapter, file or name in `lora_dir`; weight) pairs.
        out_dir: The folder to write, new or empty.
        lora_dir: The folder in which adapters are found by name.

    Returns:
        Sentences about where OpenVINO GenAI's scheduler is not the live runtime's.

    Raises:
        AdapterError: an adapter cannot be read or does not fit the model.
        BaseModelError: an adapter is for another base model.
        BlendError: the blend has a schedule, a mask or a mode, which fixed weights cannot hold.
        ModelError: `model_dir` is not a model, its scheduler has a setting that is not supported, or `out_dir` is not
            new or empty.
        ResourceError: the disk has too little space, or cannot be written.
    """
    model = ModelFolder(Path(model_dir))
    refuse_statistics(model)
    blend = resolve_blend(blend, lora_dir)
    refuse_unbakeable(blend)
    check_attach(blend, model.parameters, model.family)
    return write_model(model, changes_of(parts_to_bake(blend, model.parameters, None)), Path(out_dir), blend)


def write_model(
    model: ModelFolder, changes: Changes, out_dir: Path, blend: Blend, *, link: bool = False
) -> tuple[str, ...]:
    """Write the model with some weights changed, see `bake`.

    Args:
        model: The model to copy.
        changes: The changed weights, see `Changes`.
        out_dir: The folder to write, new or empty.
        blend: What lorablend.json records.
        link: Make hard links to unchanged files instead of copies, if the file system can. This is for a cache, whose
            entries are not used once the model has changed.
    """
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise ModelError(f"{out_dir} exists and is not empty; give a new folder")
    if model.path.resolve() in out_dir.resolve().parents:
        raise ModelError(f"{out_dir} is inside the model's own folder {model.path}; give a folder outside it")
    scheduler, sentences = genai_scheduler(model.scheduler_config)
    inexact = [tokenizer.xml for tokenizer in model.tokenizers.values() if not tokenizer.exact]
    rewritten = {file for xml in (*map(model.component, changes), *inexact) for file in _files(xml)}
    _check_space(rewritten if link else model.path.rglob("*"), out_dir)
    try:
        with atomic_write(out_dir) as work:
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
            for xml in inexact:
                from lorablend.engine.graph.clip_tokenizer import write_exact  # OpenVINO is only needed here

                write_exact(xml, work / xml.relative_to(model.path))
            if scheduler is not None:
                _write_json(work / "scheduler" / "scheduler_config.json", scheduler)
            _write_json(work / _RECORD, _record(model.path, blend))
            if out_dir.exists():
                out_dir.rmdir()  # it is empty; Windows cannot replace a folder
    except OSError as error:
        raise ResourceError(f"{out_dir} could not be written: {error.strerror or error}") from error
    return sentences


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.unlink(missing_ok=True)  # it may be a link to the model's own file
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _record(path: Path, blend: Blend) -> dict[str, Any]:
    """The source folder's lorablend.json, with this blend after those baked in before."""
    source = path / _RECORD
    try:
        record: dict[str, Any] = json.loads(source.read_text(encoding="utf-8")) if source.exists() else {}
    except ValueError as error:
        raise ModelError(f"{source} is not valid JSON: {error}; delete it") from error
    items = [{"name": item.adapter.name, "weight": item.weight, "sha256": item.adapter.sha256} for item in blend.items]
    return {**record, "blend": [*record.get("blend", []), *items]}


def _files(xml: Path) -> tuple[Path, Path]:
    return xml, xml.with_suffix(".bin")


def _check_space(written: Iterable[Path], out_dir: Path) -> None:
    need = _SPARE + sum(file.stat().st_size for file in written if file.is_file())
    free = shutil.disk_usage(next(folder for folder in out_dir.absolute().parents if folder.exists())).free
    if free < need:
        raise ResourceError(
            f"{out_dir} needs {need / 1e9:.1f} GB, but {free / 1e9:.1f} GB is free; free some or choose another disk"
        )


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)

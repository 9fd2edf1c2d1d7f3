"""Checkpoints: one safetensors file each, complete or absent; only the newest few stay.

Tensors have dotted names ("network.unet.…", "optimizer.state.0.exp_avg"); the rest of the state, and the facts that a
resume compares, are JSON in the file's metadata. There is no pickle, so a checkpoint from elsewhere is safe to load.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from lorablend.adapters.errors import ResourceError, TrainError
from lorablend.adapters.files.atomic import atomic_write

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint", "find_checkpoints", "read_checkpoint", "read_facts", "write_checkpoint"]

_PREFIX, _SUFFIX = "step-", ".checkpoint"
_FORMAT = "1"


@dataclass(frozen=True)
class Checkpoint:
    """A training after `step` steps.

    Attributes:
        facts: What identifies the training, as JSON values.
        state: A tree of dicts, lists, numbers, strings, None and tensors.
    """

    step: int
    facts: Mapping[str, Any]
    state: Mapping[str, Any]


def find_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a folder, oldest first."""
    by_step = {}
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        number = path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
        if number.isdigit():
            by_step[int(number)] = path
    return [by_step[step] for step in sorted(by_step)]


def write_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint, flush it to the disk, and delete all but the `keep` newest.

    If the disk is full, older ones are deleted first, except the newest of them.

    Raises:
        ResourceError: There is still no room; the message names the newest older checkpoint.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _split(checkpoint.state, "", tensors)
    metadata = {
        "format": _FORMAT,
        "step": str(checkpoint.step),
        "facts": json.dumps(checkpoint.facts, sort_keys=True),
        "tree": json.dumps(tree),
    }
    path = folder / f"{_PREFIX}{checkpoint.step:08}{_SUFFIX}"
    try:
        _write(path, tensors, metadata)
    except OSError:
        for old in [other for other in find_checkpoints(folder) if other != path][:-1]:
            old.unlink(missing_ok=True)
        try:
            _write(path, tensors, metadata)
        except OSError as error:
            raise _no_room(folder, path, checkpoint.step, error) from error
    for old in find_checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def read_facts(path: Path) -> tuple[int, dict[str, Any]]:
    """Read a checkpoint's step and facts, without torch. Raises TrainError if it is damaged."""
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != _FORMAT:
            raise TrainError(
                f"{path.name} has format {metadata.get('format')}, this version reads {_FORMAT}; start again without it"
            )
        return int(metadata["step"]), json.loads(metadata["facts"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise TrainError(f"{path} is damaged: {error}; delete it to continue from the one before") from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, with tensors on the CPU. Raises TrainError if it is damaged."""
    step, facts = read_facts(path)
    with safe_open(path, "pt") as file:
        tree = json.loads(file.metadata()["tree"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return Checkpoint(step, facts, _join(tree, tensors))


def _write(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> None:
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    content = save(dict(tensors), metadata)
    for leftover in path.parent.glob(f".{_PREFIX}*{_SUFFIX}.*"):  # of a training that was killed
        leftover.unlink(missing_ok=True)
    with atomic_write(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if hasattr(os, "O_DIRECTORY"):  # the new name has to reach the disk too; Windows has no such call
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _no_room(folder: Path, path: Path, step: int, error: OSError) -> ResourceError:
    others = [other for other in find_checkpoints(folder) if other != path]
    last = f"the newest one is {others[-1]}" if others else "there is none before it"
    reason = (error.strerror or str(error)).lower()
    return ResourceError(
        f"the checkpoint of step {step} could not be written to {folder}: {reason}; {last}; free up space, then resume"
    )


def _split(value: Any, name: str, tensors: dict[str, Any]) -> Any:
    """Replace each tensor in the tree by {"tensor": name}; maps become lists of pairs, for keys may be numbers."""
    import torch

    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"map": [[key, _split(item, f"{name}.{key}".lstrip("."), tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [_split(item, f"{name}.{index}".lstrip("."), tensors) for index, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(f"{name} is a {type(value).__name__}, which a checkpoint cannot hold")


def _join(tree: Mapping[str, Any], tensors: Mapping[str, Any]) -> Any:
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "map":
        return {key: _join(item, tensors) for key, item in value}
    if kind in ("list", "tuple"):
        items = [_join(item, tensors) for item in value]
        return tuple(items) if kind == "tuple" else items
    return value

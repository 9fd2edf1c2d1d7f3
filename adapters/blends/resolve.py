"""Turn what a user writes into a `Blend`: read every form of an entry, find and load every adapter."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lorablend.adapters.adapter import Adapter, load_adapter
from lorablend.adapters.blends.blend import MAX_ITEMS, Blend, BlendItem
from lorablend.adapters.blends.block_weights import BlockWeights
from lorablend.adapters.blends.mask import Mask
from lorablend.adapters.blends.schedule import Schedule
from lorablend.adapters.blends.tags import read_tags
from lorablend.adapters.errors import BlendError
from lorablend.adapters.files.find import find_adapter, find_mask
from lorablend.adapters.forms import refuse_unknown
from lorablend.adapters.wording import shown

__all__ = ["Entry", "read_blend_json", "resolve_blend"]

Entry = tuple[str | os.PathLike[str] | Adapter, float] | BlendItem | Blend | Mapping[str, Any] | str
"""One entry of a blend: a pair (path, name or Adapter; weight), a BlendItem, a Blend, the JSON form of a BlendItem or a
Blend (in which values may also be objects such as an Adapter or a Mask), or a text of `<lora:…>` tags."""

_ITEM_KEYS = ("adapter", "weight", "unet", "text_encoder", "blocks", "schedule", "mask")
_BLEND_KEYS = ("mode", "switch_steps", "items")


def resolve_blend(
    entries: Blend | Iterable[Entry],
    lora_dir: str | os.PathLike[str] | None = None,
    *,
    load: Callable[[Path], Adapter] = load_adapter,
    open_mask: Callable[[Path], np.ndarray] | None = None,
) -> Blend:
    """Find and load the adapters of a blend.

    Args:
        entries: A Blend, which is returned as it is, or entries in any of the forms of `Entry`. A mode that an entry
            sets applies to the whole blend.
        lora_dir: The folder in which adapters and masks are found by name. An adapter may be named by its file name
            with or without the suffix, by its path relative to the folder, or by the name that its trainer gave it.
        load: Loads an adapter file; a caller may return adapters that it has loaded before.
        open_mask: Reads a picture file as float32 [height, width] from 0 to 1. Without it, masks can only be boxes.

    Returns:
        The blend, with the adapters in the order of the entries.

    Raises:
        BlendError: An entry is invalid, or its adapter is not found.
        AdapterError: A file cannot be used.
    """
    if isinstance(entries, Blend):
        return entries
    items: list[BlendItem] = []
    mode: tuple[str, int] | None = None
    for part in _parts(entries):
        if len(items) > MAX_ITEMS:
            break  # `Blend` will refuse them; do not open more files
        if isinstance(part, BlendItem):
            items.append(part)
        elif isinstance(part, Mapping):
            items.append(_item(part, lora_dir, load, open_mask))
        elif mode not in (None, part):
            raise BlendError(f"the blend has the modes {_shown_mode(mode)} and {_shown_mode(part)}; give only one")
        else:
            mode = part
    name, steps = mode or ("sum", 1)
    return Blend(tuple(items), name, steps)


def read_blend_json(text: str) -> dict[str, Any]:
    """Read the JSON form of a blend, `{"mode": "sum", "items": [{"adapter": "ink", "weight": 0.8}]}`.

    Args:
        text: The JSON text; only "items" is required.

    Returns:
        The form as an entry for `resolve_blend`, which checks the items.

    Raises:
        BlendError: The text is not valid JSON, has no list of items, or has unknown keys.
    """
    try:
        form = json.loads(text)
    except RecursionError:
        raise BlendError("not a blend in JSON: nested too deeply") from None
    except ValueError as error:
        raise BlendError(f"not valid JSON: {shown(error)}") from None
    if not isinstance(form, dict) or not isinstance(form.get("items"), list):
        raise BlendError('no list of "items"; write {"items": [{"adapter": "ink", "weight": 0.8}]}')
    refuse_unknown(form, _BLEND_KEYS)
    return form


def _parts(entries: Iterable[Entry], inside: bool = False) -> Iterable[BlendItem | Mapping[str, Any] | tuple[str, int]]:
    """Yield items, JSON forms of items, and (mode, switch_steps) for every mode other than the default.

    `inside`: the entries are the items of a blend, which cannot be blends themselves.
    """
    for entry in entries:
        if isinstance(entry, BlendItem) or (isinstance(entry, Mapping) and "adapter" in entry):
            yield entry
        elif isinstance(entry, tuple | list) and len(entry) == 2:
            yield {"adapter": entry[0], "weight": entry[1]}
        elif isinstance(entry, str) and entry.lstrip().startswith("<") and not inside:
            yield from _parts(read_tags(entry))
        elif isinstance(entry, Blend) and not inside:
            yield from entry
            yield from _mode(entry.mode, entry.switch_steps)
        elif isinstance(entry, Mapping) and not inside:
            refuse_unknown(entry, _BLEND_KEYS)
            items = entry.get("items", ())
            if not isinstance(items, list | tuple):
                raise BlendError(f"items {shown(items)} is not a list of entries")
            yield from _parts(items, inside=True)
            yield from _mode(entry.get("mode", "sum"), entry.get("switch_steps", 1))
        else:
            raise BlendError(f"{shown(entry)} is not an entry of a blend; give a pair, (file or name, weight)")


def _mode(mode: Any, switch_steps: Any) -> Iterable[tuple[str, int]]:
    blend = Blend((), mode, switch_steps)  # checks both
    return [(blend.mode, blend.switch_steps)] if blend.mode != "sum" else []


def _shown_mode(mode: tuple[str, int] | None) -> str:
    name, steps = mode or ("sum", 1)
    return f"{name}:{steps}" if name == "switch" else name


def _item(
    form: Mapping[str, Any],
    lora_dir: str | os.PathLike[str] | None,
    load: Callable[[Path], Adapter],
    open_mask: Callable[[Path], np.ndarray] | None,
) -> BlendItem:
    refuse_unknown(form, _ITEM_KEYS)
    adapter = form["adapter"]
    if not isinstance(adapter, str | os.PathLike | Adapter):
        raise BlendError(f"{shown(adapter)} is not an adapter; give its path, its name or an Adapter")
    try:
        blocks, schedule = form.get("blocks"), form.get("schedule")
        if blocks is not None and not isinstance(blocks, BlockWeights):
            blocks = BlockWeights.from_json(blocks)
        if schedule is not None and not isinstance(schedule, Schedule):
            schedule = Schedule.from_json(schedule)
        mask = _mask(form.get("mask"), lora_dir, open_mask)
    except BlendError as error:
        raise BlendError(f"{shown(adapter.name if isinstance(adapter, Adapter) else adapter)}: {error}") from None
    return BlendItem(
        adapter if isinstance(adapter, Adapter) else load(find_adapter(adapter, lora_dir)),
        form.get("weight", 1.0),
        form.get("unet"),
        form.get("text_encoder"),
        blocks,
        schedule,
        mask,
    )


def _mask(
    value: Any, lora_dir: str | os.PathLike[str] | None, open_mask: Callable[[Path], np.ndarray] | None
) -> Mask | None:
    if value is None or isinstance(value, Mask):
        return value
    if not isinstance(value, str | os.PathLike):
        return Mask(box=value)
    if open_mask is None:
        raise BlendError(f"mask {shown(value)}: pictures cannot be opened here; give a box: left, top, right, bottom")
    path = Path(value)
    name = path.name if path.is_absolute() else path.as_posix()  # absolute paths stay private
    return Mask(picture=open_mask(find_mask(value, lora_dir)), name=name)

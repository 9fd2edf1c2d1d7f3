"""Adapters with their weights, and how an adapter is found by its name."""

import difflib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

from ._wording import shown
from .adapter import Adapter, load_adapter
from .errors import AdapterError, BlendError
from .file import read_file
from .metadata import output_name

__all__ = ["Blend", "BlendItem", "resolve_blend"]

_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class BlendItem:
    """One adapter and the user's weight for it: 1 as trained, 0 not at all, negative for the opposite."""

    adapter: Adapter
    weight: float


@dataclass(frozen=True)
class Blend:
    """Adapters with their weights, in the user's order. Their changes are added up, so the order changes nothing."""

    items: tuple[BlendItem, ...] = ()

    def __iter__(self) -> Iterator[BlendItem]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


# A path, a name to look up, or an adapter; and its weight.
Entry = tuple["str | os.PathLike[str] | Adapter", float]


def resolve_blend(
    entries: Blend | Iterable[Entry],
    lora_dir: str | os.PathLike[str] | None = None,
    *,
    load: Callable[[Path], Adapter] = load_adapter,
) -> Blend:
    """Find and load the adapters of a blend.

    A name is a path, or under `lora_dir`, at any depth: a file's name with or without its suffix, its path from there,
    or the name that the trainer gave it; exactly so, or if there is none, in other letter case. `load` lets a caller
    keep adapters that it has loaded before. Raises BlendError for a weight that is no finite number and for a name
    that fits no file or more than one, AdapterError for a file that cannot be used.
    """
    if isinstance(entries, Blend):
        return entries
    items: list[BlendItem] = []
    for entry in entries:
        if not isinstance(entry, tuple | list) or len(entry) != 2:
            raise BlendError(f"{shown(entry)}: an entry of a blend is a pair, (file or name, weight)")
        what, weight = entry
        if not isinstance(what, str | os.PathLike | Adapter):
            raise BlendError(f"{shown(what)}: an adapter is given by its path, its name or an Adapter")
        name = shown(what.name if isinstance(what, Adapter) else what)
        if not isinstance(weight, Real) or isinstance(weight, bool) or not math.isfinite(weight):
            raise BlendError(f"{name}: weight {shown(weight)} is not a finite number")
        items.append(BlendItem(what if isinstance(what, Adapter) else load(_find(what, lora_dir)), float(weight)))
    return Blend(tuple(items))


def _find(name: str | os.PathLike[str], lora_dir: str | os.PathLike[str] | None) -> Path:
    if isinstance(name, os.PathLike):
        return Path(name)
    path = Path(name)
    # A bare word is a name, even where a file without a suffix happens to be called that.
    if (path.suffix.lower() == _SUFFIX or path.name != name) and _is_file(path):
        return path
    if lora_dir is None:
        raise BlendError(f"{shown(name)}: no such file, and no folder of adapters to look for the name in")
    return _search(name, Path(lora_dir))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the file system, or with a NUL in it
        return False


def _search(name: str, folder: Path) -> Path:
    if not folder.is_dir():
        raise BlendError(f"{shown(folder)}: no such folder of adapters, wanted for {shown(name)}")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() == _SUFFIX and path.is_file())
    by_file = [(path, _file_names(path, folder)) for path in files]
    if found := _only(name, folder, by_file, fold=str):
        return found
    by_alias = [(path, _aliases(path)) for path in files]  # only now: it opens every file
    for names, fold in ((by_alias, str), (by_file, str.casefold), (by_alias, str.casefold)):
        if found := _only(name, folder, names, fold):
            return found
    known = {alias.casefold(): alias for _, names in (*by_alias, *by_file) for alias in names}
    nearest = difflib.get_close_matches(name.casefold().removesuffix(_SUFFIX), known, n=1)
    hint = f"; did you mean {shown(known[nearest[0]])}?" if nearest else ""
    raise BlendError(f"{shown(name)}: no adapter of that name among the {len(files)} in {shown(folder)}{hint}")


def _only(name: str, folder: Path, names: list[tuple[Path, set[str]]], fold: Callable[[str], str]) -> Path | None:
    """The one file that has this name, or None. Raises BlendError for two."""
    found = [path for path, own in names if fold(name) in map(fold, own)]
    if len(found) > 1:
        first, second = (shown(path.relative_to(folder).as_posix()) for path in found[:2])
        raise BlendError(f"{shown(name)}: both {first} and {second} have that name; give the path in {shown(folder)}")
    return found[0] if found else None


def _file_names(path: Path, folder: Path) -> set[str]:
    """ "styles/ink.safetensors", "styles/ink", "ink.safetensors", "ink"."""
    inside = path.relative_to(folder)
    return {inside.as_posix(), inside.with_suffix("").as_posix(), path.name, path.stem}


def _aliases(path: Path) -> set[str]:
    try:
        alias = output_name(read_file(path).metadata)
    except AdapterError:  # some other broken file in the folder is no reason to fail
        return set()
    return {alias} if alias else set()

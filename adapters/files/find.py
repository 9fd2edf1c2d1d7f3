"""How an adapter, or the picture of a mask, is found by its name."""

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from lorablend.adapters.errors import AdapterError, BlendError
from lorablend.adapters.files.file import read_file
from lorablend.adapters.files.metadata import output_name
from lorablend.adapters.wording import shown

__all__ = ["PromptName", "find_adapter", "find_mask"]

_SUFFIX = ".safetensors"


class PromptName(str):
    """A name that comes from a prompt, perhaps a stranger's: it finds files inside the folder of adapters only."""

    __slots__ = ()


def find_adapter(name: str | os.PathLike[str], lora_dir: str | os.PathLike[str] | None) -> Path:
    """The file that `name` means.

    A path, or under `lora_dir`, at any depth: a file's name with or without its suffix, its path from there, or the
    name that the trainer gave it; exactly so, or if there is none, in other letter case. What is hidden there is not
    found. A `PromptName` is never a path, and finds no file whose link leads out of the folder. Raises BlendError if it
    fits no file or more than one.
    """
    if isinstance(name, os.PathLike):
        return Path(name)
    path = Path(name)
    from_prompt = isinstance(name, PromptName)
    # A bare word is a name, even where a file without a suffix happens to be called that.
    if not from_prompt and (path.suffix.lower() == _SUFFIX or path.name != name) and _is_file(path):
        return path
    if lora_dir is None:
        raise BlendError(f"{shown(name)}: no such file, and no folder of adapters to look for the name in")
    found = _search(name, Path(lora_dir))
    return _inside(found, name, Path(lora_dir)) if from_prompt else found


def find_mask(name: str | os.PathLike[str], lora_dir: str | os.PathLike[str] | None) -> Path:
    """The picture file that `name` means: a path, else one from `lora_dir` on; for a `PromptName` only the latter."""
    from_prompt = isinstance(name, PromptName)
    if not from_prompt and (lora_dir is None or _is_file(Path(name))):
        return Path(name)
    if lora_dir is None:
        raise BlendError(f"mask {shown(name)}: no folder of adapters to look for the picture in")
    path = Path(lora_dir) / name
    if not _is_file(path):
        raise BlendError(f"mask {shown(name)}: no such picture in {shown(lora_dir)}")
    return _inside(path, name, Path(lora_dir)) if from_prompt else path


def _inside(path: Path, name: str, folder: Path) -> Path:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BlendError(f"{shown(name)}: a link that leads out of {shown(folder)}; a prompt cannot name it")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the file system, or with a NUL in it
        return False


def _search(name: str, folder: Path) -> Path:
    if not folder.is_dir():
        raise BlendError(f"{shown(folder)}: no such folder of adapters, wanted for {shown(name)}")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() == _SUFFIX and _is_listed(path, folder))
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


def _is_listed(path: Path, folder: Path) -> bool:
    """What is hidden, and what is in a hidden folder such as a library's bin, is nobody's adapter."""
    return not any(part.startswith(".") for part in path.relative_to(folder).parts) and path.is_file()


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

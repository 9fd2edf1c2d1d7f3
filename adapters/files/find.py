"""Find an adapter, or the picture of a mask, by its name."""

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
    """A name from a prompt, which may be untrusted: it finds only files inside the adapter folder."""

    __slots__ = ()


def find_adapter(name: str | os.PathLike[str], lora_dir: str | os.PathLike[str] | None) -> Path:
    """Return the file that `name` refers to.

    `name` is a path, or it refers to a file anywhere below `lora_dir`: by its file name with or without the suffix, its
    path relative to `lora_dir`, or the name that the trainer gave the adapter. Exact matches are preferred to matches
    in another letter case. Hidden files are not found. A `PromptName` is never taken as a path, and does not find links
    that point outside the folder. Raises BlendError if the name matches no file, or more than one.
    """
    if isinstance(name, os.PathLike):
        return Path(name)
    path = Path(name)
    from_prompt = isinstance(name, PromptName)
    # A bare word is a name, even if a file without a suffix has that name.
    if not from_prompt and (path.suffix.lower() == _SUFFIX or path.name != name) and _is_file(path):
        return path
    if lora_dir is None:
        raise BlendError(f"{shown(name)}: no such file, and no adapter folder to search for the name")
    path = _search(name, Path(lora_dir))
    return _inside(path, name, Path(lora_dir)) if from_prompt else path


def find_mask(name: str | os.PathLike[str], lora_dir: str | os.PathLike[str] | None) -> Path:
    """Return the picture file that `name` refers to: a path, or one relative to `lora_dir`.

    A `PromptName` is always relative to `lora_dir`. Raises BlendError if there is no such file there.
    """
    from_prompt = isinstance(name, PromptName)
    if not from_prompt and (lora_dir is None or _is_file(Path(name))):
        return Path(name)
    if lora_dir is None:
        raise BlendError(f"mask {shown(name)}: no adapter folder to search for the picture")
    path = Path(lora_dir) / name
    if not _is_file(path):
        raise BlendError(f"mask {shown(name)}: no such picture in {shown(lora_dir)}")
    return _inside(path, name, Path(lora_dir)) if from_prompt else path


def _inside(path: Path, name: str, folder: Path) -> Path:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BlendError(f"{shown(name)}: a link that points outside {shown(folder)}; a prompt cannot use it")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long for the file system, or contains NUL
        return False


def _search(name: str, folder: Path) -> Path:
    if not folder.is_dir():
        raise BlendError(f"{shown(folder)}: no such adapter folder, needed to find {shown(name)}")
    files = _files(folder)
    by_file = [(folder / file, _file_names(file)) for file in files]
    if path := _only(name, folder, by_file, fold=str):
        return path
    by_alias = [(folder / file, _aliases(folder / file)) for file in files]  # not earlier: it opens every file
    for names, fold in ((by_alias, str), (by_file, str.casefold), (by_alias, str.casefold)):
        if path := _only(name, folder, names, fold):
            return path
    known = {alias.casefold(): alias for _, names in (*by_alias, *by_file) for alias in names}
    nearest = difflib.get_close_matches(name.casefold().removesuffix(_SUFFIX), known, n=1)
    hint = f"; did you mean {shown(known[nearest[0]])}?" if nearest else ""
    is_path = not isinstance(name, PromptName) and Path(name).suffix.lower() == _SUFFIX
    missing = "no such file, and no adapter" if is_path else "no adapter"
    raise BlendError(f"{shown(name)}: {missing} with that name among the {len(files)} in {shown(folder)}{hint}")


def _files(folder: Path) -> list[str]:
    """The adapters to choose from, by their paths in the folder with slashes, without hidden files and folders."""
    found: list[str] = []
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(where).relative_to(folder).as_posix()
        found += [
            name if inside == "." else f"{inside}/{name}"
            for name in names
            if name.lower().endswith(_SUFFIX) and not name.startswith(".") and os.path.isfile(os.path.join(where, name))
        ]
    return sorted(found, key=lambda file: file.split("/"))


def _only(name: str, folder: Path, names: list[tuple[Path, set[str]]], fold: Callable[[str], str]) -> Path | None:
    """Return the only file that has this name, or None. Raises BlendError if several have it."""
    paths = [path for path, own in names if fold(name) in map(fold, own)]
    if len(paths) > 1:
        first, second = (shown(path.relative_to(folder).as_posix()) for path in paths[:2])
        raise BlendError(f"{shown(name)}: both {first} and {second} have that name; give the path in {shown(folder)}")
    return paths[0] if paths else None


def _file_names(file: str) -> set[str]:
    """ "styles/ink.safetensors", "styles/ink", "ink.safetensors", "ink"."""
    name = file.rpartition("/")[2]
    return {file, file[: -len(_SUFFIX)], name, name[: -len(_SUFFIX)]}


def _aliases(path: Path) -> set[str]:
    try:
        alias = output_name(read_file(path).metadata)
    except AdapterError:  # another, broken file in the folder should not stop the search
        return set()
    return {alias} if alias else set()

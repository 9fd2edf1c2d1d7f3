"""What is known of a data set while it is read, and the small questions that all its readers ask."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lorablend.adapters.errors import DataError
from lorablend.adapters.wording import shown
from lorablend.train.data.archives import is_ignored
from lorablend.train.data.captions import read_captions
from lorablend.train.data.manifests import read_text
from lorablend.train.data.pictures import SUFFIXES

__all__ = [
    "MASK",
    "SIDECARS",
    "DataSetDraft",
    "Picture",
    "all_of",
    "counted",
    "is_picture",
    "mask_of",
    "may_read",
    "name_of",
    "read_sidecar",
    "walk",
]

SIDECARS = (".txt", ".caption")
MASK = "-masklabel"  # OneTrainer's name


@dataclass
class FoundPicture:
    path: Path
    name: str
    captions: tuple[str, ...] = ()
    written: str = ""  # where the captions are from: ".txt files", "metadata.jsonl"…
    repeats: int = 1
    mask: Path | None = None
    trigger: str | None = None
    folder_caption: str = ""
    regularization: bool = False


@dataclass
class DataSetDraft:
    """What is known so far; each step below adds to it.

    may_leave: whether a listing may name files outside root: only one that the user gave by itself, for one that came
    in a folder or an archive may be a stranger's.
    """

    root: Path
    may_leave: bool = False
    pictures: list[FoundPicture] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def walk(root: Path) -> list[Path]:
    """Every file that is not hidden, at any depth, by name; linked folders once."""
    files: list[Path] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_ignored(PurePosixPath(name)))
        files += [Path(folder) / name for name in sorted(names) if not is_ignored(PurePosixPath(name))]
    return sorted(files)


def read_sidecar(draft: DataSetDraft, picture: FoundPicture, suffixes: Iterable[str]) -> None:
    """The text file beside a picture: `name.txt`, `name.caption`, or with the picture's own suffix before it."""
    texts: dict[str, tuple[str, ...]] = {}
    for suffix in suffixes:
        for file in (picture.path.with_suffix(suffix), picture.path.with_name(picture.path.name + suffix)):
            if file.is_file():
                try:
                    texts[file.name] = read_captions(read_text(file, name_of(file, draft.root)))
                except DataError as error:
                    draft.problems.append(str(error))
    said = {name: captions for name, captions in texts.items() if captions}
    if not said:
        return
    (first, picture.captions), *rest = said.items()
    picture.written = f"{Path(first).suffix} files"
    for name, captions in rest:
        if captions != picture.captions:
            draft.notes.append(f"{picture.name}: {first} and {name} differ; {first} holds")


def is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.stem.endswith(MASK)


def mask_of(path: Path) -> Path | None:
    mask = path.with_name(f"{path.stem}{MASK}.png")
    return mask if mask.is_file() else None


def may_read(draft: DataSetDraft, path: Path) -> bool:
    """Whether a listing may name `path`: inside the data set's folder always, outside only if `draft.may_leave`.

    The path is compared as it is spelled, without `..`; nothing outside is looked at. An archive has no links.
    """
    return draft.may_leave or Path(os.path.abspath(path)).is_relative_to(os.path.abspath(draft.root))


def name_of(path: Path, root: Path) -> str:
    return shown(path.relative_to(root).as_posix() if path.is_relative_to(root) else path)


def counted(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' * (number != 1)}"


def all_of(names: Sequence[str], unit: str) -> str:
    """Every name: these are few, or the user must see them all."""
    return f"{counted(len(names), unit)}: {', '.join(names)}"

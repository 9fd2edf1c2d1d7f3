"""A data set while it is being read, and the small helpers that all its readers share."""

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
    "FoundPicture",
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
    """A picture, with what names and listings say of it so far."""

    path: Path
    name: str
    captions: tuple[str, ...] = ()
    written: str = ""  # the source of the captions: ".txt files", "metadata.jsonl"…
    repeats: int = 1
    mask: Path | None = None
    trigger: str | None = None
    folder_caption: str = ""
    regularization: bool = False


@dataclass
class DataSetDraft:
    """Everything that is known of a data set so far; each reader adds to it.

    Attributes:
        may_leave: Whether a listing may name files outside root. Only a listing that the user gave itself may do so,
            for one that came in a folder or an archive may be a stranger's.
    """

    root: Path
    may_leave: bool = False
    pictures: list[FoundPicture] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def walk(root: Path) -> list[Path]:
    """List every file that is not hidden, at any depth, by name; a folder with several links to it appears once."""
    files: list[Path] = []
    visited: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not is_ignored(PurePosixPath(name)))
        files += [Path(folder) / name for name in sorted(names) if not is_ignored(PurePosixPath(name))]
    return sorted(files)


def read_sidecar(draft: DataSetDraft, picture: FoundPicture, suffixes: Iterable[str]) -> None:
    """Read the text file next to a picture: `name.txt`, `name.caption`, or the same after the picture's own suffix."""
    texts: dict[str, tuple[str, ...]] = {}
    for suffix in suffixes:
        for file in (picture.path.with_suffix(suffix), picture.path.with_name(picture.path.name + suffix)):
            if file.is_file():
                try:
                    texts[file.name] = read_captions(read_text(file, name_of(file, draft.root)))
                except DataError as error:
                    draft.problems.append(str(error))
    texts = {name: captions for name, captions in texts.items() if captions}
    if not texts:
        return
    (first, picture.captions), *rest = texts.items()
    picture.written = f"{Path(first).suffix} files"
    for name, captions in rest:
        if captions != picture.captions:
            draft.notes.append(f"{picture.name}: {first} and {name} differ; {first} is used")


def is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.stem.endswith(MASK)


def mask_of(path: Path) -> Path | None:
    mask = path.with_name(f"{path.stem}{MASK}.png")
    return mask if mask.is_file() else None


def may_read(draft: DataSetDraft, path: Path) -> bool:
    """Whether a listing may name `path`: always inside the data set's folder, outside only if `draft.may_leave`.

    Only the spelling is compared, with `..` resolved, so nothing outside is touched; archives contain no links.
    """
    return draft.may_leave or Path(os.path.abspath(path)).is_relative_to(os.path.abspath(draft.root))


def name_of(path: Path, root: Path) -> str:
    return shown(path.relative_to(root).as_posix() if path.is_relative_to(root) else path)


def counted(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' * (number != 1)}"


def all_of(names: Sequence[str], unit: str) -> str:
    """List every name, for names that are few or that the user has to see in full."""
    return f"{counted(len(names), unit)}: {', '.join(names)}"

"""Data sets to train on, as page and REST edit them: flat folders of pictures, each with its caption in a text file.

sets/NAME/         000.png, 000.txt, and 000-masklabel.png if only a part of the picture counts
sets/.bin/NAME/    dropped pictures
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lorablend.adapters.errors import DataError, NotFoundError, RequestError
from lorablend.adapters.files.atomic import atomic_write
from lorablend.adapters.wording import shown
from lorablend.app.files import clean_name
from lorablend.app.work.sets_add import (
    KEPT,
    TEXT,
    check_caption,
    check_texts,
    keep,
    notes_of,
    read,
    receive,
    stem_of,
    write_text,
)
from lorablend.train.data.archives import unpack
from lorablend.train.data.captions import read_captions
from lorablend.train.data.draft import MASK
from lorablend.train.data.manifests import read_text
from lorablend.train.data.members import Limits
from lorablend.train.data.mosaic import PER_SHEET, draw_sheet
from lorablend.train.data.pictures import SUFFIXES, load_upright

__all__ = ["Added", "SetFacts", "SetPicture", "Sets"]

_BIN = ".bin"
_ADDING = ".adding-"  # of folders for files that come or go; removed at the next start after a kill
# Of an archive that is sent: pictures hardly get smaller by packing, and xz's strongest setting takes half the memory.
_LIMITS = Limits(members=20_000, size=16 << 30, memory=128 << 20, seconds=900)


@dataclass(frozen=True, kw_only=True)
class SetFacts:
    """A data set in numbers. captions: pictures that have a caption. dropped: pictures in the set's bin."""

    name: str
    pictures: int
    captions: int
    dropped: int


@dataclass(frozen=True, kw_only=True)
class SetPicture:
    """A picture of a data set. file: its name in the set. caption: each line is an alternative, "" for none."""

    file: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Added:
    """What was added to a set. files: the names of the new pictures. notes: what a person should know about them."""

    files: tuple[str, ...]
    notes: tuple[str, ...]


class Sets:
    """The data sets in a folder, which is made with the first of them. For any number of threads of one process.

    Names of sets and of pictures are looked up in lists and never taken for paths; NotFoundError for an unknown one.

    Attributes:
        looked_at: The set and the picture that the page showed last, so that another tab goes on there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self.looked_at: tuple[str, str] | None = None
        for part in folder.glob(f"{_ADDING}*"):  # of a process that was killed
            shutil.rmtree(part, ignore_errors=True)

    def names(self) -> list[str]:
        """The names of all sets, sorted."""
        if not self._folder.is_dir():
            return []
        names = [path.name for path in self._folder.iterdir() if _is_own(path) and not path.name.startswith(".")]
        return sorted(names, key=str.casefold)

    def folder(self, name: str) -> Path:
        """The folder of a set."""
        names = self.names()
        if name not in names:
            raise NotFoundError(f"there is no data set {shown(name)!r}; there are {', '.join(names) or 'none yet'}")
        return self._folder / name

    def facts(self, name: str) -> SetFacts:
        """A set in numbers."""
        pictures = self.pictures(name)
        captions = sum(bool(picture.caption) for picture in pictures)
        return SetFacts(name=name, pictures=len(pictures), captions=captions, dropped=len(self.dropped(name)))

    def pictures(self, name: str) -> list[SetPicture]:
        """All pictures of a set, by name."""
        return [SetPicture(file=path.name, caption=_caption(path)) for path in _files(self.folder(name))]

    def path(self, name: str, file: str) -> Path:
        """The path of a picture."""
        return _find(self.folder(name), file, f"the data set {name}")

    def set_caption(self, name: str, file: str, caption: str) -> None:
        """Set the captions of a picture; "" removes them. Raises RequestError for a text that is far too long."""
        check_caption(file, caption)
        with self._lock:
            write_text(self.path(name, file).with_suffix(TEXT), caption)

    def drop(self, name: str, file: str) -> None:
        """Move a picture, and what belongs to it, to the set's bin."""
        with self._lock:
            path = self.path(name, file)
            os.utime(path)  # the bin is sorted by the time of the drop
            _move(path, self._bin(name))

    def dropped(self, name: str) -> list[str]:
        """The names of the pictures in a set's bin, the last drop first."""
        paths = _files(self._bin(self.folder(name).name))
        return [path.name for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)]

    def restore(self, name: str, file: str) -> None:
        """Take a picture out of the bin."""
        with self._lock:
            folder = self.folder(name)
            _move(_find(self._bin(name), file, f"the bin of the data set {name}"), folder)

    def remove(self, name: str) -> None:
        """Delete a set with its bin, for good. A running training goes on, because it has links of its own."""
        with self._lock:
            gone = self._folder / f"{_ADDING}{uuid.uuid4().hex}"
            self.folder(name).rename(gone)  # in one step, so that half a set is never found
            if self._bin(name).exists():
                self._bin(name).rename(gone / _BIN)
            if self.looked_at and self.looked_at[0] == name:
                self.looked_at = None
        shutil.rmtree(gone, ignore_errors=True)

    def mosaic(self, name: str, sheet: int = 0) -> bytes:
        """A PNG of all pictures with their captions, small; a large set has several such sheets."""
        paths = _files(self.folder(name))[sheet * PER_SHEET :][:PER_SHEET]
        if sheet < 0 or not paths:
            raise RequestError(f"the data set {name} has no sheet {sheet}; the first one is 0")
        tiles = [(lambda path=path: load_upright(path), _caption(path) or f"{path.name}: no caption") for path in paths]
        buffer = io.BytesIO()
        draw_sheet(tiles).save(buffer, "PNG")
        return buffer.getvalue()

    def sheets(self, name: str) -> int:
        """The number of sheets of `mosaic`."""
        return -(-len(_files(self.folder(name))) // PER_SHEET)

    def link(self, name: str, folder: Path) -> None:
        """Link the set, as it is now, to a new folder, which later edits do not reach."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder) as work, self._lock:
            work.mkdir()
            for path in self.folder(name).iterdir():
                if path.is_file() and not path.name.startswith("."):
                    try:
                        os.link(path, work / path.name)
                    except OSError:  # another disk, or a file system without links
                        shutil.copyfile(path, work / path.name)

    def add(
        self,
        name: str,
        files: Iterable[tuple[str, BinaryIO]],
        progress: Callable[[int, int], object] | None = None,
    ) -> Added:
        """Add pictures to a set: all of them, or none if one is bad.

        Args:
            name: The set, which is made if it does not exist.
            files: Names and contents of pictures, and of .txt files of the same names with their captions; or of one
                archive in any layout that can be trained on. Text files alone caption pictures of the set.
            progress: Called with the number of pictures that are done, and of all.

        Raises:
            RequestError: The name cannot be a set's name, or a caption is far too long.
            DataError: Some files are bad; the message names them.
        """
        if not name or name != clean_name(name):
            raise RequestError(
                f"{shown(name)!r} cannot be a data set's name; give one without any of / \\ : < > \" | ? *"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        if (self._folder / name).is_symlink():
            raise RequestError(f"{name} is a link in the server's folder of data sets; give the data set another name")
        with tempfile.TemporaryDirectory(prefix=_ADDING, dir=self._folder) as work:
            came, ready = Path(work) / "data", Path(work) / "ready"  # a folder called "data" captions nothing
            came.mkdir()
            ready.mkdir()
            archive = receive(files, came)
            texts, dataset = {}, None
            if archive:
                folder = unpack(archive, Path(work) / "unpacked" / "data", _LIMITS)
                check_texts(folder)
                dataset = read(folder)
            else:
                check_texts(came)
                texts = self._lone_texts(name, came)
                if any(path.suffix.lower() in SUFFIXES for path in came.iterdir()):
                    dataset = read(came)
                elif not texts:
                    raise DataError("there is no picture among the files; send pictures, with or without .txt files")
            examples = list(dict.fromkeys(dataset.examples)) if dataset else []
            for index, example in enumerate(examples):
                keep(example, ready / str(index))
                if progress:
                    progress(index + 1, len(examples))
            with self._lock:
                (self._folder / name).mkdir(exist_ok=True)
                stems = self._settle(name, [stem_of(example.path) for example in examples], ready)
                for path, text in texts.items():
                    write_text(path, text)
        return Added(files=tuple(stems), notes=notes_of(dataset))

    def _settle(self, name: str, stems: list[str], ready: Path) -> list[str]:
        """Move pictures into the set; names in the bin count as taken, because those pictures may come back."""
        folder = self._folder / name
        taken = {path.stem.casefold() for place in (folder, self._bin(name)) for path in _files(place)}
        names: list[str] = []
        numbers: dict[str, int] = {}  # the last one of each name, for all pictures may have the same
        for index, stem in enumerate(stems):
            own, number = stem, numbers.get(stem.casefold(), 1)
            while own.casefold() in taken:
                number += 1
                own = f"{stem}-{number}"
            numbers[stem.casefold()] = number
            taken.add(own.casefold())
            (picture,) = _files(ready / str(index))
            for path in sorted((ready / str(index)).iterdir(), key=lambda path: path == picture):  # the picture last
                os.replace(path, folder / (own + path.name.removeprefix("picture")))
            names.append(own + picture.suffix)
        return names

    def _lone_texts(self, name: str, came: Path) -> dict[Path, str]:
        """Captions for pictures that the set has already: paths of the text files, and their new content."""
        stems = {path.stem for path in came.iterdir() if path.suffix.lower() in SUFFIXES}
        here = {path.stem: path for path in _files(self._folder / name)}
        texts: dict[Path, str] = {}
        for path in sorted(came.iterdir()):
            if path.suffix.lower() == TEXT and path.stem not in stems:
                if stem_of(path) not in here:
                    raise DataError(f"{shown(path.name)} belongs to no picture; send a picture of the same name too")
                text = "\n".join(read_captions(read_text(path, path.name)))
                check_caption(path.name, text)
                texts[here[stem_of(path)].with_suffix(TEXT)] = text
        return texts

    def _bin(self, name: str) -> Path:
        return self._folder / _BIN / name


def _files(folder: Path) -> list[Path]:
    """The pictures of a folder, by name, without links, masks and hidden files."""
    if not _is_own(folder):
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in KEPT.values()
        and not path.stem.endswith(MASK)
        and not path.name.startswith(".")
        and path.is_file()
        and not path.is_symlink()
    )


def _is_own(folder: Path) -> bool:
    """Whether it is a folder and no link, which would show and change what is elsewhere."""
    return folder.is_dir() and not folder.is_symlink()


def _find(folder: Path, file: str, where: str) -> Path:
    for path in _files(folder):
        if path.name == file:
            return path
    raise NotFoundError(f"{where} has no picture {shown(file)!r}")


def _move(path: Path, folder: Path) -> None:
    """Move a picture, then its caption and mask, to a folder."""
    if (folder / path.name).exists():
        raise RequestError(f"{path.name} is there already; rename one of the two")
    folder.mkdir(parents=True, exist_ok=True)
    for part in (path, path.with_suffix(TEXT), path.with_name(f"{path.stem}{MASK}.png")):
        if part.is_file():
            os.replace(part, folder / part.name)


def _caption(path: Path) -> str:
    try:
        text = path.with_suffix(TEXT).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(read_captions(text))

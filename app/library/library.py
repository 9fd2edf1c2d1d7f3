"""A folder of adapters with an index: it is listed at once, hashed on request, searched, marked and added to.

Next to the adapters there is one hidden folder, `.lorablend/`:

    index.sqlite   facts about the files; rebuilt if it is deleted
    marks.json     favourites, tags, dates of use; by SHA-256, so that they survive a rename and the loss of the index
    bin/           removed adapters
    parts/         unfinished downloads
"""

import difflib
import os
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from hashlib import sha256 as _sha256
from pathlib import Path
from typing import Any

import platformdirs

from lorablend.adapters import Adapter
from lorablend.adapters.errors import AdapterError, BlendError, RequestError
from lorablend.adapters.files.file import read_file
from lorablend.adapters.wording import shown
from lorablend.app.files import move_to_bin
from lorablend.app.library.add import fetch
from lorablend.app.library.catalogue import Catalogue
from lorablend.app.library.entry import Entry, name_of
from lorablend.app.library.index import HASHED, HEADER, Index, Row
from lorablend.app.library.marks import Mark, Marks
from lorablend.app.library.preview import Preview, read_picture, read_thumbnail
from lorablend.app.library.scan import hash_whole, read_facts
from lorablend.app.library.walk import Walk, walk
from lorablend.app.library.watch import UNLIMITED, Limits, Progress

__all__ = ["Entry", "Library"]

_OWN_FOLDER = ".lorablend"
_LONGEST_TAG = 100  # characters


class Library:
    """The library in an existing folder.

    Any number of threads and programs can use the same folder at once. If it is read-only, the index is kept in the
    user's cache, and marks, additions and removals are refused.

    Raises:
        BlendError: The folder does not exist.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if not Path(folder).is_dir():
            raise BlendError(f"{shown(folder)} is not a folder; give an existing folder of adapters")
        self._folder = Path(folder).resolve()
        self._own = self._folder / _OWN_FOLDER
        place = _usable(self._own) or _cache_for(self._folder)
        self._index = Index(place / "index.sqlite", place / "index.lock")
        self._marks = Marks(self._own / "marks.json", self._own / "marks.lock")
        self._reading = threading.Lock()
        self._walked: tuple[Walk, tuple[int, ...] | None] | None = None  # the last walk, and the index after it
        self._catalogue: tuple[object, Catalogue] | None = None  # and what it was made from

    @staticmethod
    def is_at(folder: Path) -> bool:
        """Whether this folder has been used as a library before."""
        return (folder / _OWN_FOLDER).is_dir()

    @property
    def folder(self) -> Path:
        """The folder of the adapters, with links resolved."""
        return self._folder

    # Reading the files

    def scan(self, progress: Callable[[int, int], object] | None = None, *, thoroughly: bool = True) -> None:
        """List the folder, and read the headers of new and changed files.

        A file counts as unchanged while its path, size and modification time stay the same. If the call is stopped, the
        next one continues from there.

        Args:
            progress: Called with the number of headers read so far and the number to read.
            thoroughly: Look at every file. Otherwise only if a folder has changed since the last scan, which misses a
                file that was rewritten in place.

        Raises:
            AdapterError: The folder does not exist any more.
        """
        if not thoroughly and self._walked and self._is_indexed(self._walked) and not self._walked[0].has_changed:
            return
        self._list()
        self._advance_all(HEADER, _read_header, progress)
        if self._walked:
            self._walked = self._walked[0], self._index.stamp

    def hash_files(self, progress: Callable[[int, int], object] | None = None) -> None:
        """Read the files that are not hashed yet.

        Each hash is stored at once, so a stopped call loses at most one file. `progress` is as in `scan`.
        """
        self._advance_all(HASHED, self._read_whole, progress)

    def _list(self) -> None:
        if not self._folder.is_dir():
            raise AdapterError(f"{self._folder}: the folder of adapters is missing; put it back")
        now = walk(self._folder)
        if not (self._walked and self._walked[0].files == now.files and self._is_indexed(self._walked)):
            self._index.update(now.files, self._is_there)
            self._walked = now, None
        else:
            self._walked = now, self._walked[1]

    def _is_indexed(self, walked: tuple[Walk, tuple[int, ...] | None]) -> bool:
        """Whether the index is as it was after that walk."""
        return walked[1] is not None and walked[1] == self._index.stamp

    def _is_there(self, file: str) -> bool:
        """Whether the file exists. The path is from the index, which others can write, so it may lead elsewhere."""
        return not {"..", _OWN_FOLDER} & set(Path(file).parts) and os.path.lexists(self._folder / file.lstrip("/"))

    def _advance_all(
        self,
        stage: int,
        read: Callable[[Path, Row], Row],
        progress: Callable[[int, int], object] | None,
    ) -> None:
        """Bring all files to a stage, one after the other."""
        with self._reading:
            waiting = self._index.waiting(stage)
            for done, row in enumerate(waiting):
                if progress:
                    progress(done, len(waiting))
                self._advance(row, read)
            if progress and waiting:
                progress(len(waiting), len(waiting))

    def _advance(self, row: Row, read: Callable[[Path, Row], Row]) -> None:
        path = self._folder / row.scanned.file
        try:
            advanced = read(path, row)
            status = path.stat()
        except OSError:  # deleted, or not readable just now: the next scan tells
            return
        if (status.st_size, status.st_mtime_ns % 2**63) == (row.scanned.size, row.scanned.mtime_ns):
            self._index.advance(advanced)

    def _read_whole(self, path: Path, row: Row) -> Row:
        if row.stage < HEADER:
            row = _read_header(path, row)
        if row.stage == HASHED:
            return row
        return Row(row.scanned, HASHED, row.facts, hash_whole(path))

    # Queries

    def entries(self) -> list[Entry]:
        """All adapters sorted by name, including broken ones with their error."""
        return list(self.catalogue.entries)

    @property
    def catalogue(self) -> Catalogue:
        """All adapters, as the index and the marks have them now."""
        stamp = self._index.stamp, self._marks.stamp
        if self._catalogue and self._catalogue[0] == stamp:
            return self._catalogue[1]
        known = self._marks.read()
        rows, folder = self._index.rows(), self._folder
        previews = {folder / row.scanned.file: folder / row.scanned.preview for row in rows if row.scanned.preview}
        catalogue = Catalogue((self._entry(row, known) for row in rows), previews)
        # Only what did not change meanwhile is kept.
        self._catalogue = (stamp, catalogue) if stamp[0] and stamp == (self._index.stamp, self._marks.stamp) else None
        return catalogue

    def search(
        self,
        text: str = "",
        *,
        base_model: str | None = None,
        algorithm: str | None = None,
        tag: str | None = None,
        favourite: bool | None = None,
    ) -> list[Entry]:
        """Find the adapters that match all conditions.

        Args:
            text: Words, each of which must occur in the name, title, trigger words or tags, or begin a hash; their case
                does not matter.
            base_model: As in `Entry`.
            algorithm: One that occurs in the file.
            tag: One of the user's tags.
            favourite: True for favourites only, False for all others.
        """
        words = text.casefold().split()
        return [
            entry
            for entry in self.entries()
            if (base_model is None or entry.base_model == base_model)
            and (algorithm is None or algorithm.casefold() in entry.algorithms)
            and (tag is None or tag.casefold() in map(str.casefold, entry.tags))
            and (favourite is None or entry.favourite == favourite)
            and all(_fits(word, entry) for word in words)
        ]

    def get(self, name: str) -> Entry:
        """Look up an adapter by its path in the library, or by its file name alone if that is unique.

        The suffix may be left out. If no adapter has exactly this name, the case of letters is ignored. The name is
        compared with the entries and never used as a path, so it cannot lead out of the library.

        Raises:
            BlendError: No adapter has this name, or several have it.
        """
        catalogue = self.catalogue
        matches = catalogue.matches(name)
        if len(matches) == 1:
            return matches[0]
        if matches:
            first, second = (shown(entry.name) for entry in matches[:2])
            raise BlendError(f"{shown(name)}: both {first} and {second} have that name; give one of these")
        known = catalogue.aliases()
        nearest = difflib.get_close_matches(name.casefold(), known, n=1)
        hint = f"; did you mean {shown(known[nearest[0]])}?" if nearest else ""
        where = f"among the {len(catalogue.entries)} in {shown(self._folder)}"
        raise BlendError(f"{shown(name)}: no adapter with that name {where}{hint}")

    def preview(self, name: str) -> Preview | None:
        """The adapter's picture: the file next to it, else the one in its metadata, else None."""
        return self.preview_of(self.get(name))

    def preview_of(self, entry: Entry) -> Preview | None:
        """As `preview`."""
        beside = self.catalogue.previews.get(entry.path)
        if beside and (picture := read_picture(beside, self._folder)):
            return picture
        if entry.preview and entry.error is None:
            return read_thumbnail(read_file(entry.path).metadata)
        return None

    def _row(self, entry: Entry) -> Row | None:
        return self._index.row(self._file(entry))

    def _file(self, entry: Entry) -> str:
        return entry.path.relative_to(self._folder).as_posix()

    def _entry(self, row: Row, marks: dict[str, Mark]) -> Entry:
        mark = marks.get(row.hashes.sha256, Mark()) if row.hashes else Mark()
        return Entry.of(row.scanned, self._folder, row.facts, row.hashes, mark)

    # Changes

    def add(
        self,
        source: str | os.PathLike[str],
        *,
        name: str | None = None,
        sha256: str | None = None,
        limits: Limits = UNLIMITED,
        progress: Progress | None = None,
    ) -> Entry:
        """Add an adapter and return its entry; if the library has the same file already, return that one's.

        An interrupted download continues where it stopped when it is requested again.

        Args:
            source: A file, which is copied; an http or https address; or "hf:owner/repo" or "hf:owner/repo/file". Only
                safetensors files are accepted.
            name: The adapter's new name; by default, the one that the source gives it.
            sha256: The expected SHA-256 of the whole file.
            limits: What a download may take.
            progress: Called with the bytes so far and in all (None if unknown); returns False to stop. While nothing
                arrives, it is called by another thread.

        Raises:
            AdapterError: The file cannot be obtained, or is not a safetensors file.
            RequestError: The source or the name is invalid, or the name is taken.
            ResourceError: The disk is full.
            Cancelled: `progress` returned False.
        """
        self._writable()
        self.scan()
        file = fetch(
            source,
            self._folder,
            self._own / "parts",
            self._known_file,
            name=name,
            sha256=sha256,
            limits=limits,
            progress=progress,
        )
        self.scan()
        row = self._index.row(file)
        if row is None:
            raise AdapterError(f"{shown(name_of(file))}: deleted as soon as it was added; try again")
        if row.stage < HASHED:
            self._advance(row, self._read_whole)
        return self._by_file(file)

    def remove(self, name: str) -> Path:
        """Move an adapter, with the picture next to it, to the library's bin, and return its folder there."""
        self._writable()
        self._list()
        entry = self.get(name)
        row = self._row(entry)
        moved = move_to_bin(entry.path, row.scanned.preview if row else "", self._folder, self._own / "bin")
        self._list()
        return moved

    def set_favourite(self, name: str, favourite: bool = True) -> Entry:
        """Add an adapter to the favourites, or remove it from them."""
        return self._mark(name, favourite=favourite)

    def set_tags(self, name: str, tags: Iterable[str]) -> Entry:
        """Replace an adapter's tags.

        Raises:
            RequestError: A tag is empty, longer than 100 characters, or has several lines.
        """
        clean = dict.fromkeys(tag.strip() for tag in tags)
        for tag in clean:
            if not tag or len(tag) > _LONGEST_TAG or not tag.isprintable():
                raise RequestError(f"tag {shown(repr(tag))}: give 1 to {_LONGEST_TAG} characters on one line")
        return self._mark(name, tags=tuple(clean))

    def note_used(self, adapters: Iterable[Adapter]) -> None:
        """Record that the adapters, if their files are in this folder, are being used now.

        Their own hashes identify them, so no file is read again.
        """
        self._writable()
        for adapter in adapters:
            path = adapter.path.resolve()
            if path.is_relative_to(self._folder):
                name = name_of(path.relative_to(self._folder).as_posix())
                self._marks.change(adapter.sha256, name, last_used=_now())

    def _mark(self, name: str, **changes: Any) -> Entry:
        entry = self._hashed(self.get(name))
        if entry.sha256 is None:
            raise AdapterError(f"{shown(entry.name)}: {entry.error or 'cannot be read'}, so it cannot be marked")
        self._writable()
        self._marks.change(entry.sha256, entry.name, **changes)
        return self._by_file(self._file(entry))

    def _hashed(self, entry: Entry) -> Entry:
        """The entry with its hashes, which are computed now if they are not known."""
        if entry.hashed:
            return entry
        self._list()
        if (row := self._row(entry)) and row.stage < HASHED:
            self._advance(row, self._read_whole)
        return self._by_file(self._file(entry))

    def _by_file(self, file: str) -> Entry:
        row = self._index.row(file)
        if row is None:
            raise BlendError(f"{shown(name_of(file))}: not in {shown(self._folder)} any more")
        return self._entry(row, self._marks.read())

    def _known_file(self, sha256: str) -> str | None:
        """The file with this hash, or None if none is known."""
        row = self._index.row_of(sha256)
        return row.scanned.file if row and self._is_there(row.scanned.file) else None

    def _writable(self) -> None:
        if _usable(self._own) is None:
            raise AdapterError(f"{self._own} cannot be written to; use a folder of adapters that you may write to")


def _read_header(path: Path, row: Row) -> Row:
    """Read a header; a file that is not a safetensors file needs no hash and counts as HASHED."""
    facts = read_facts(path)
    return Row(row.scanned, HEADER if facts.tensors else HASHED, facts, None)


def _usable(own: Path) -> Path | None:
    """The hidden folder, created if it does not exist; None if it cannot be written to."""
    try:
        own.mkdir(exist_ok=True)
        ignore = own / ".gitignore"
        if not ignore.exists():  # nothing in here should be committed to a repository
            ignore.write_text("*\n", "utf-8")
    except OSError:
        return None
    return own if os.access(own, os.W_OK) and own.resolve() == own else None


def _cache_for(folder: Path) -> Path:
    cache = Path(os.environ.get("LORABLEND_CACHE") or platformdirs.user_cache_dir("lorablend"))
    place = cache / "libraries" / _sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True)
    return place


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _fits(word: str, entry: Entry) -> bool:
    texts = (entry.name, entry.title, *entry.trigger_words, *entry.tags)
    hashes = (entry.sha256 or "", entry.autov3 or "")
    return any(word in text.casefold() for text in texts) or any(value.startswith(word) for value in hashes)

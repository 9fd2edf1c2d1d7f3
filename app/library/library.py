"""A folder of adapters that knows what is in it: listed at once, hashed when asked, searched, marked, added to.

Beside the adapters there is one hidden folder of ours, `.lorablend/`:

    index.sqlite   what the files say; made again if it is deleted
    marks.json     favourites, tags, dates of use; by SHA-256, so that they outlive a rename and the index
    bin/           what was removed
    parts/         downloads that are not finished
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
from lorablend.app.files import SUFFIX, move_to_bin
from lorablend.app.library.add import Progress, fetch
from lorablend.app.library.entry import Entry
from lorablend.app.library.index import HASHED, HEADER, Changes, Index, Row
from lorablend.app.library.marks import Mark, Marks
from lorablend.app.library.preview import Preview, read_picture, read_thumbnail
from lorablend.app.library.scan import hash_whole, read_facts, walk

__all__ = ["Entry", "Library"]

_OWN_FOLDER = ".lorablend"
_LONGEST_TAG = 100  # characters


class Library:
    """The library in a folder, which must be there.

    Any number of threads and programs may use the same folder at once. Where it cannot be written to, the index is kept
    in the user's cache, and marks, additions and removals are refused.

    Raises BlendError if there is no such folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if not Path(folder).is_dir():
            raise BlendError(f"{shown(folder)} is not a folder of adapters; give one that is there")
        self._folder = Path(folder).resolve()
        self._own = self._folder / _OWN_FOLDER
        place = _usable(self._own) or _cache_for(self._folder)
        self._index = Index(place / "index.sqlite", place / "index.lock")
        self._marks = Marks(self._own / "marks.json", self._own / "marks.lock")
        self._looking = threading.Lock()

    @staticmethod
    def is_at(folder: Path) -> bool:
        """Has this folder been used as a library before?"""
        return (folder / _OWN_FOLDER).is_dir()

    @property
    def folder(self) -> Path:
        """Where the adapters are, with links resolved."""
        return self._folder

    # looking at the files

    def scan(self, progress: Callable[[int, int], object] | None = None) -> Changes:
        """See what is in the folder, and read the headers of what is new or changed; nothing is read twice.

        A file is taken for unchanged while its path, size and time of change are. Stopped at any point, the next call
        goes on from there. `progress` is called with the files done and those there are to do. Raises AdapterError
        where the folder is gone.
        """
        changes = self._list()
        self._look(HEADER, _read_header, progress)
        return changes

    def hash_files(self, progress: Callable[[int, int], object] | None = None) -> None:
        """Read the files that were not hashed yet.

        Each is kept when it is done, so that a stopped call loses one file at most. `progress` as in `scan`.
        """
        self._look(HASHED, self._read_whole, progress)

    def _list(self) -> Changes:
        if not self._folder.is_dir():
            raise AdapterError(f"{self._folder}: the folder of adapters is gone; put it back")
        return self._index.update(walk(self._folder), self._is_there)

    def _is_there(self, file: str) -> bool:
        """Asked with what the index says, which others can write: nothing outside the folder is there."""
        return not {"..", _OWN_FOLDER} & set(Path(file).parts) and os.path.lexists(self._folder / file.lstrip("/"))

    def _look(
        self,
        stage: int,
        look: Callable[[Path, Row], Row],
        progress: Callable[[int, int], object] | None,
    ) -> None:
        """Bring all files to a stage, one after the other."""
        with self._looking:
            waiting = self._index.waiting(stage)
            for done, row in enumerate(waiting):
                if progress:
                    progress(done, len(waiting))
                self._look_at(row, look)
            if progress and waiting:
                progress(len(waiting), len(waiting))

    def _look_at(self, row: Row, look: Callable[[Path, Row], Row]) -> None:
        path = self._folder / row.found.file
        try:
            seen = look(path, row)
            status = path.stat()
        except OSError:  # it has gone, or cannot be read just now: the next scan says
            return
        if (status.st_size, status.st_mtime_ns % 2**63) == (row.found.size, row.found.mtime_ns):
            self._index.advance(seen)

    def _read_whole(self, path: Path, row: Row) -> Row:
        if row.stage < HEADER:
            row = _read_header(path, row)
        if row.stage == HASHED:
            return row
        return Row(row.found, HASHED, row.facts, hash_whole(path))

    # asking

    def entries(self) -> list[Entry]:
        """All adapters, broken ones with their error included, in the order of their names."""
        marks = self._marks.read()
        found = [self._entry(row, marks) for row in self._index.rows()]
        return sorted(found, key=lambda entry: (entry.name.casefold(), entry.name))

    def search(
        self,
        text: str = "",
        *,
        base_model: str | None = None,
        algorithm: str | None = None,
        tag: str | None = None,
        favourite: bool | None = None,
    ) -> list[Entry]:
        """The adapters that fit everything that is given.

        Each word of `text` occurs in the name, title, trigger words or tags, or begins a hash; case does not matter.
        `favourite`: only those, or with False only the others.
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
        """The adapter of this name: its path in the library, or its file's name alone if no other has it.

        With or without the suffix; exactly so, or if there is none, in other letter case. It is looked up among the
        entries, so no name leads anywhere else. Raises BlendError for a name that none or several have.
        """
        entries = self.entries()
        for fold in (str, str.casefold):
            wanted = fold(name)
            for names in (_full_names, _short_names):
                found = [entry for entry in entries if wanted in map(fold, names(entry))]
                if len(found) == 1:
                    return found[0]
                if found:
                    first, second = (shown(entry.name) for entry in found[:2])
                    raise BlendError(f"{shown(name)}: both {first} and {second} have that name; give one of these")
        known = {alias.casefold(): alias for entry in entries for alias in (*_short_names(entry), entry.name)}
        nearest = difflib.get_close_matches(name.casefold(), known, n=1)
        hint = f"; did you mean {shown(known[nearest[0]])}?" if nearest else ""
        where = shown(self._folder)
        raise BlendError(f"{shown(name)}: no adapter with that name among the {len(entries)} in {where}{hint}")

    def preview(self, name: str) -> Preview | None:
        """The adapter's picture: the file beside it, else the one in its metadata, else None."""
        entry = self.get(name)
        row = self._row(entry)
        if row and row.found.preview and (picture := read_picture(self._folder / row.found.preview, self._folder)):
            return picture
        if row and row.facts.thumbnail and not row.error:
            return read_thumbnail(read_file(entry.path).metadata)
        return None

    def _row(self, entry: Entry) -> Row | None:
        return self._index.row(self._file(entry))

    def _file(self, entry: Entry) -> str:
        return entry.path.relative_to(self._folder).as_posix()

    def _entry(self, row: Row, marks: dict[str, Mark]) -> Entry:
        found, facts, hashes = row.found, row.facts, row.hashes
        mark = marks.get(hashes.sha256, Mark()) if hashes else Mark()
        return Entry.of(
            facts,
            hashes,
            mark,
            name=_name(found.file),
            path=self._folder / found.file,
            size=found.size,
            modified=found.mtime_ns / 1e9,
            error=row.error or None,
            preview=bool(found.preview or facts.thumbnail),
        )

    # changing

    def add(
        self,
        source: str | os.PathLike[str],
        *,
        name: str | None = None,
        sha256: str | None = None,
        progress: Progress | None = None,
    ) -> Entry:
        """Bring an adapter in, and return its entry; one that is here already is found and left as it is.

        source: a file, which is copied; an http or https address; or "hf:owner/repo" or "hf:owner/repo/file". Only
        safetensors. A download that was cut off goes on where it stopped when it is asked for again. `name`: what to
        call it; else the name that the source gives it. `sha256`: what the whole file must have. `progress` is called
        with the bytes so far and those in all, None if nobody says; it returns False to stop.

        Raises AdapterError where it cannot be had or is no safetensors file, RequestError for a source or a name that
        makes no sense or is taken, ResourceError for a full disk, Cancelled.
        """
        self._writable()
        self.scan()
        file = fetch(
            source, self._folder, self._own / "parts", self._known_file, name=name, sha256=sha256, progress=progress
        )
        self.scan()
        found = self._index.row(file)
        if found is None:
            raise AdapterError(f"{shown(_name(file))}: gone again as soon as it was added; try again")
        if found.stage < HASHED:
            self._look_at(found, self._read_whole)
        return self._by_file(file)

    def remove(self, name: str) -> Path:
        """Put an adapter, with the picture beside it, into the library's bin; returns the folder it is in now."""
        self._writable()
        self._list()
        entry = self.get(name)
        row = self._row(entry)
        moved = move_to_bin(entry.path, row.found.preview if row else "", self._folder, self._own / "bin")
        self._list()
        return moved

    def set_favourite(self, name: str, favourite: bool = True) -> Entry:
        """Make it a favourite, or none."""
        return self._mark(name, favourite=favourite)

    def set_tags(self, name: str, tags: Iterable[str]) -> Entry:
        """Replace its tags; each is one line of at most 100 characters. Raises RequestError for anything else."""
        clean = dict.fromkeys(tag.strip() for tag in tags)
        for tag in clean:
            if not tag or len(tag) > _LONGEST_TAG or not tag.isprintable():
                raise RequestError(f"tag {shown(repr(tag))}: give 1 to {_LONGEST_TAG} characters on one line")
        return self._mark(name, tags=tuple(clean))

    def note_used(self, adapters: Iterable[Adapter]) -> None:
        """Note that those whose file is in this folder are used now; by their own hash, so that none is read again."""
        self._writable()
        for adapter in adapters:
            path = adapter.path.resolve()
            if path.is_relative_to(self._folder):
                name = _name(path.relative_to(self._folder).as_posix())
                self._marks.change(adapter.sha256, name, last_used=_now())

    def _mark(self, name: str, **changes: Any) -> Entry:
        entry = self._hashed(self.get(name))
        if entry.sha256 is None:
            raise AdapterError(f"{shown(entry.name)}: {entry.error or 'cannot be read'}, so it cannot be marked")
        self._writable()
        self._marks.change(entry.sha256, entry.name, **changes)
        return self._by_file(self._file(entry))

    def _hashed(self, entry: Entry) -> Entry:
        """The entry with its hashes; they are computed now if they are not known."""
        if entry.hashed:
            return entry
        self._list()
        if (row := self._row(entry)) and row.stage < HASHED:
            self._look_at(row, self._read_whole)
        return self._by_file(self._file(entry))

    def _by_file(self, file: str) -> Entry:
        found = self._index.row(file)
        if found is None:
            raise BlendError(f"{shown(_name(file))}: gone from {shown(self._folder)}")
        return self._entry(found, self._marks.read())

    def _known_file(self, sha256: str) -> str | None:
        """The file with this hash, if there is one that is known."""
        row = self._index.row_of(sha256)
        return row.found.file if row and self._is_there(row.found.file) else None

    def _writable(self) -> None:
        if _usable(self._own) is None:
            raise AdapterError(f"{self._own} cannot be written to; use a folder of adapters that you may write to")


def _read_header(path: Path, row: Row) -> Row:
    """A file that is no safetensors file is done with that: there is nothing in it to hash."""
    facts = read_facts(path)
    return Row(row.found, HEADER if facts.tensors else HASHED, facts, None)


def _usable(own: Path) -> Path | None:
    """Our hidden folder, made if it is not there; None where that is impossible."""
    try:
        own.mkdir(exist_ok=True)
        ignore = own / ".gitignore"
        if not ignore.exists():  # nothing in here belongs into anybody's repository
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


def _name(file: str) -> str:
    return file[: -len(SUFFIX)] if file.lower().endswith(SUFFIX) else file


def _full_names(entry: Entry) -> set[str]:
    return {entry.name, entry.name + SUFFIX}


def _short_names(entry: Entry) -> set[str]:
    return {entry.path.name, _name(entry.path.name)}


def _fits(word: str, entry: Entry) -> bool:
    texts = (entry.name, entry.title, *entry.trigger_words, *entry.tags)
    hashes = (entry.sha256 or "", entry.autov3 or "")
    return any(word in text.casefold() for text in texts) or any(value.startswith(word) for value in hashes)

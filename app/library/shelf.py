"""The adapters that the page and REST offer, from a library or from a plain folder, which is left unchanged."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import BlendError, LorablendError
from lorablend.app.library.catalogue import Catalogue
from lorablend.app.library.entry import Entry
from lorablend.app.library.library import Library
from lorablend.app.library.marks import Mark
from lorablend.app.library.preview import Preview, read_picture
from lorablend.app.library.scan import AdapterFacts, read_facts
from lorablend.app.library.walk import ScannedFile, Walk, walk

__all__ = ["Shelf"]

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")  # replaced by an underscore in the name of a tag, see `infotext`


class Shelf:
    """The adapters in a folder, whose contents may change at any time."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._library: Library | None = None
        self._plain: tuple[Walk, dict[ScannedFile, Entry], Catalogue] | None = None

    @property
    def library(self) -> Library | None:
        """None while the folder is a plain one; adding to it or marking in it makes it a library."""
        if self._library is None and self._folder is not None and Library.is_at(self._folder):
            self._library = Library(self._folder)
        return self._library

    def entries(self) -> list[Entry]:
        """All adapters, including broken ones with their error."""
        return list(self._catalogue(thoroughly=True).entries)

    def names(self) -> list[str]:
        return self._catalogue(thoroughly=False).names

    def get(self, name: str) -> Entry | None:
        """Find an adapter by its whole name, or by its file name alone if that is unique; None if there is none."""
        entry = self._catalogue(thoroughly=False).named(name)
        if entry is not None and not _is_unchanged(entry):
            entry = self._catalogue(thoroughly=True).named(name)
        return entry

    def _catalogue(self, *, thoroughly: bool) -> Catalogue:
        """thoroughly: as for `Library.scan`."""
        if self.library is not None:
            self.library.scan(thoroughly=thoroughly)
            return self.library.catalogue
        if self._folder is None:
            return Catalogue([], {})
        return self._plain_catalogue(self._folder, thoroughly)

    def _plain_catalogue(self, folder: Path, thoroughly: bool) -> Catalogue:
        """The adapters of a plain folder; only what is new or has changed is read."""
        if not folder.is_dir():
            raise BlendError(f"{folder} is not a folder; give an existing folder of adapters")
        walked, known, catalogue = self._plain or (None, {}, Catalogue([], {}))
        if walked is None or thoroughly or walked.has_changed:
            now = walk(folder.resolve())
            if walked is None or walked.files != now.files:
                known = {file: known[file] if file in known else _plain(file, folder, now.root) for file in now.files}
                beside = {folder / file.file: folder / file.preview for file in now.files if file.preview}
                catalogue = Catalogue(known.values(), beside)
            self._plain = now, known, catalogue
        return catalogue

    def preview(self, entry: Entry) -> str:
        """The adapter's picture as a data URL, or "" if it has none."""
        picture: Preview | None = None
        if self.library is not None:
            try:
                picture = self.library.preview_of(entry)
            except LorablendError:
                return ""
        elif self._folder is not None and entry.preview:
            beside = self._catalogue(thoroughly=False).previews.get(entry.path)
            picture = read_picture(beside, self._folder.resolve()) if beside else None
        if picture is None:
            return ""
        return f"data:{picture.media_type};base64,{base64.b64encode(picture.content).decode()}"

    def find(self, name: str, digest: str = "") -> tuple[str, str]:
        """Find the adapter that a picture was drawn with.

        An adapter with the right hash is the same one, whatever its name.

        Args:
            name: As the picture gives it.
            digest: The first digits of its SHA-256, or its AutoV3.

        Returns:
            Its name here, or "" if it is not here; and a line that says what is wrong, or "".
        """
        entries = self.entries()
        named = [e for e in entries if name in (e.name, e.path.stem) or _UNSAFE.sub("_", e.path.stem) == name]
        if not digest:
            return (named[0].name, "") if named else ("", f"the adapter {name} is not here")
        for entry in [*named, *(entry for entry in entries if entry not in named)]:
            if entry.error is None and any(known.startswith(digest) for known in _hashes(entry)):
                return entry.name, ""
        if named:
            return named[0].name, f"the adapter {name} here is another file than the picture's ({digest[:10]})"
        return "", f"the adapter {name} ({digest[:10]}) is not here"


def _plain(file: ScannedFile, folder: Path, root: Path) -> Entry:
    """The entry of a file outside a library, from its header. root: the folder with links resolved."""
    facts = AdapterFacts() if file.refused else read_facts(root / file.file)
    # Here only the files next to the adapters are shown.
    return Entry.of(file, folder, replace(facts, thumbnail=False), None, Mark())


def _is_unchanged(entry: Entry) -> bool:
    try:
        status = entry.path.stat()
    except OSError:  # refused: nothing of it was read
        return entry.error is not None
    return (status.st_size, status.st_mtime_ns % 2**63 / 1e9) == (entry.size, entry.modified)


def _hashes(entry: Entry) -> tuple[str, ...]:
    if entry.sha256:
        return (entry.sha256, entry.autov3 or "")
    return _read_hashes(entry.path, entry.modified)


@lru_cache(maxsize=4096)
def _read_hashes(path: Path, modified: float) -> tuple[str, ...]:
    try:
        adapter = load_adapter(path, lenient=True)
    except LorablendError:
        return ()
    return (adapter.sha256, adapter.autov3)

"""The adapters that the page and REST offer, from a library or from a plain folder, which is left unchanged."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import LorablendError
from lorablend.app.library.entry import Entry, name_of
from lorablend.app.library.folder import adapter_files
from lorablend.app.library.library import Library
from lorablend.app.library.marks import Mark
from lorablend.app.library.preview import Preview, picture_beside, read_picture
from lorablend.app.library.scan import ScannedFile, read_facts

__all__ = ["Shelf"]

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")  # replaced by an underscore in the name of a tag, see `infotext`


class Shelf:
    """The adapters in a folder, whose contents may change at any time."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._library: Library | None = None

    @property
    def library(self) -> Library | None:
        """None while the folder is a plain one; adding to it or marking in it makes it a library."""
        if self._library is None and self._folder is not None and Library.is_at(self._folder):
            self._library = Library(self._folder)
        return self._library

    def entries(self) -> list[Entry]:
        """All adapters, including broken ones with their error."""
        if self.library is not None:
            self.library.scan()
            return self.library.entries()
        if self._folder is None:
            return []
        return [_plain(path, self._folder, path.stat().st_mtime_ns) for path in adapter_files(self._folder)]

    def names(self) -> list[str]:
        if self.library is not None:
            return [entry.name for entry in self.entries()]
        if self._folder is None:
            return []
        return [name_of(path.relative_to(self._folder).as_posix()) for path in adapter_files(self._folder)]

    def get(self, name: str) -> Entry | None:
        """Find an adapter by its whole name, or by its file name alone if that is unique; None if there is none."""
        entries = self.entries()
        whole = [entry for entry in entries if entry.name == name]
        short = [entry for entry in entries if entry.path.stem == name]
        return whole[0] if whole else short[0] if len(short) == 1 else None

    def preview(self, entry: Entry) -> str:
        """The adapter's picture as a data URL, or "" if it has none."""
        picture: Preview | None = None
        if self.library is not None:
            try:
                picture = self.library.preview(entry.name)
            except LorablendError:
                return ""
        elif self._folder is not None:
            name = picture_beside(entry.path.name, {path.name for path in entry.path.parent.iterdir()})
            picture = read_picture(entry.path.with_name(name), self._folder.resolve()) if name else None
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


@lru_cache(maxsize=4096)
def _plain(path: Path, folder: Path, mtime_ns: int) -> Entry:
    """The entry of a file outside a library, from its header. With `mtime_ns`, a changed file is read again."""
    file = ScannedFile(path.relative_to(folder).as_posix(), path.stat().st_size, mtime_ns)
    facts = replace(read_facts(path), thumbnail=False)  # here only the files next to the adapters are shown
    return Entry.of(file, folder, facts, None, Mark())


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

"""One adapter as a library presents it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorablend.app.files import SUFFIX
from lorablend.app.library.marks import Mark
from lorablend.app.library.scan import AdapterFacts, Hashes
from lorablend.app.library.walk import ScannedFile

__all__ = ["Entry", "name_of"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One adapter of a library.

    Attributes:
        name: Path in the library without the suffix ("ink", "styles/neon"), as a tag in a prompt takes it.
        path: The file.
        size: Bytes.
        modified: Time of the last change, in seconds since 1970.
        title, base_model, algorithms, ranks, trigger_words, tensors: As in `AdapterFacts`.
        hashed: Whether the whole file has been read.
        sha256: 64 hexadecimal digits, or None until the file is hashed; `autov2` has 10 digits, `autov3` 12.
        error: Why the adapter cannot be used, or None. Damaged values are only noticed when it is used.
        preview: Whether there is a picture of it.
        tags, favourite: The user's marks.
        last_used: The user's latest use, ISO 8601 in UTC, or None.
    """

    name: str
    path: Path
    size: int
    modified: float
    title: str
    base_model: str
    algorithms: tuple[str, ...]
    ranks: tuple[int, ...]
    trigger_words: tuple[str, ...]
    tensors: int
    hashed: bool
    sha256: str | None
    autov2: str | None
    autov3: str | None
    error: str | None
    preview: bool
    tags: tuple[str, ...]
    favourite: bool
    last_used: str | None

    @classmethod
    def of(cls, file: ScannedFile, folder: Path, facts: AdapterFacts, hashes: Hashes | None, mark: Mark) -> Entry:
        """The entry of a file in the library's folder `folder`."""
        return cls(
            name=name_of(file.file),
            path=folder / file.file,
            size=file.size,
            modified=file.mtime_ns / 1e9,
            title=facts.title,
            base_model=facts.base_model,
            algorithms=facts.algorithms,
            ranks=facts.ranks,
            trigger_words=facts.trigger_words,
            tensors=facts.tensors,
            hashed=hashes is not None,
            sha256=hashes.sha256 if hashes else None,
            autov2=hashes.sha256[:10] if hashes else None,
            autov3=hashes.autov3 if hashes else None,
            error=file.refused or facts.error or None,
            preview=bool(file.preview or facts.thumbnail),
            tags=mark.tags,
            favourite=mark.favourite,
            last_used=mark.last_used,
        )

    def to_dict(self) -> dict[str, Any]:
        """A form for `json.dumps`."""
        return {**asdict(self), "path": str(self.path)}


def name_of(file: str) -> str:
    """The name of the adapter in a file, given by its path in the library: the path without the suffix."""
    return file[: -len(SUFFIX)] if file.lower().endswith(SUFFIX) else file

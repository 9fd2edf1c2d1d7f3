"""What a library tells of one adapter."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorablend.app.library.marks import Mark
from lorablend.app.library.scan import Facts, Hashes

__all__ = ["Entry"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One adapter of a library.

    `name` is its path in the library without the suffix ("ink", "styles/neon"), which the tag of a prompt takes too;
    `path` is where it is; `size` is in bytes, `modified` in seconds since 1970. `base_model`, `algorithms` and `ranks`
    are told from the header. `sha256` (64 hex digits), `autov2` (10) and `autov3` (12) are None until it is `hashed`.
    `error` is why it cannot be used, or None; that its numbers are broken shows only when it is used. `preview`: there
    is a picture. The last three are the user's own marks; `last_used` is ISO 8601, in UTC.
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
    def of(
        cls,
        facts: Facts,
        hashes: Hashes | None,
        mark: Mark,
        *,
        name: str,
        path: Path,
        size: int,
        modified: float,
        error: str | None,
        preview: bool,
    ) -> Entry:
        return cls(
            name=name,
            path=path,
            size=size,
            modified=modified,
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
            error=error,
            preview=preview,
            tags=mark.tags,
            favourite=mark.favourite,
            last_used=mark.last_used,
        )

    def to_dict(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {**asdict(self), "path": str(self.path)}

"""What lies in a library's folder."""

from __future__ import annotations

from pathlib import Path

from lorablend.app.library import Library


def adapters_in(library: Library) -> list[str]:
    return sorted(
        path.relative_to(library.folder).as_posix()
        for path in library.folder.rglob("*")
        if path.is_file() and ".lorablend" not in path.parts
    )


def parts_of(library: Library, ending: str = ".part") -> list[Path]:
    return list((library.folder / ".lorablend" / "parts").glob(f"*{ending}"))

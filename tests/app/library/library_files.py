"""Files of a library, and how they are read."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from lorablend.app.library.library import Library
from tests.adapter_files import SDXL_SHAPES, random_factors, write_kohya

_PICTURE = io.BytesIO()
Image.new("RGB", (8, 8), (200, 30, 30)).save(_PICTURE, "PNG")
PNG = _PICTURE.getvalue()


def adapters_in(library: Library) -> list[str]:
    return sorted(
        path.relative_to(library.folder).as_posix()
        for path in library.folder.rglob("*")
        if path.is_file() and ".lorablend" not in path.parts
    )


def headers_read(library: Library) -> int:
    """Scan the library; returns how many headers were read."""
    totals = [0]
    library.scan(lambda done, total: totals.append(total))
    return totals[-1]


def parts_of(library: Library, ending: str = ".part") -> list[Path]:
    return list((library.folder / ".lorablend" / "parts").glob(f"*{ending}"))


def write(folder: Path, name: str, seed: int = 0, metadata: dict[str, str] | None = None, rank: int = 4) -> Path:
    path = folder / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_kohya(path, random_factors(SDXL_SHAPES, rank=rank, alpha=2.0, seed=seed), metadata=metadata or {})
    return path

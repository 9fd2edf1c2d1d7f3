"""The adapter files of a folder."""

import os
from pathlib import Path

import platformdirs

from lorablend.adapters.errors import BlendError

__all__ = ["adapter_files", "default_folder"]


def default_folder() -> Path:
    """The library to use when none is named: $LORABLEND_ADAPTERS, else a folder in the user's data directory."""
    return Path(os.environ.get("LORABLEND_ADAPTERS") or Path(platformdirs.user_data_dir("lorablend")) / "adapters")


def adapter_files(folder: Path | None) -> list[Path]:
    """List all .safetensors files in `folder` at any depth, sorted by path; an empty list if `folder` is None.

    Hidden files and folders, whose names start with a dot, are left out.

    Raises:
        BlendError: The folder does not exist.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise BlendError(f"{folder} is not a folder; give an existing folder of adapters")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() == ".safetensors"
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )

"""The adapters of a folder."""

import os
from pathlib import Path

import platformdirs

from lorablend.adapters.errors import BlendError

__all__ = ["adapter_files", "default_folder"]


def default_folder() -> Path:
    """The library that is meant where none is named: $LORABLEND_ADAPTERS, else a folder of the user's own data."""
    return Path(os.environ.get("LORABLEND_ADAPTERS") or Path(platformdirs.user_data_dir("lorablend")) / "adapters")


def adapter_files(folder: Path | None) -> list[Path]:
    """All .safetensors files in `folder`, at any depth, in the order of their names; none without a folder.

    What is hidden (a name that starts with a dot) is left out, with all that is in it. Raises BlendError if there is no
    such folder.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise BlendError(f"{folder} is not a folder of adapters; give one that is there")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() == ".safetensors"
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )

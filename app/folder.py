"""The adapters of a folder."""

from pathlib import Path

from lorablend.adapters.errors import BlendError

__all__ = ["adapter_files"]


def adapter_files(folder: Path | None) -> list[Path]:
    """All .safetensors files in `folder`, at any depth, in the order of their names; none without a folder.

    Raises BlendError if there is no such folder.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise BlendError(f"{folder} is not a folder of adapters; give one that is there")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".safetensors" and path.is_file())

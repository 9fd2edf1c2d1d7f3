"""The shipped model, for torch."""

from pathlib import Path

from lorablend.shipped import model_dir

__all__ = ["diffusers_folder"]


def diffusers_folder() -> Path:
    """The shipped model as a diffusers folder, made at first use and kept in the cache.

    Raises:
        MissingExtraError: lorablend[convert] is not installed.
    """
    import hashlib

    from lorablend.convert.restore import restore
    from lorablend.engine.disk_cache import default_cache_dir

    weights = sorted(model_dir().glob("*/openvino_model.bin"))
    content = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in weights)).hexdigest()
    folder = default_cache_dir() / "demo" / content[:32]
    if not folder.exists():
        try:
            restore(model_dir(), folder)
        except OSError:
            if not folder.exists():  # else another process was faster
                raise
    return folder

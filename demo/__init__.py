"""The embedded model and its adapters, see README.md beside this file."""

from pathlib import Path

__all__ = ["adapters_dir", "diffusers_folder", "model_dir"]

# A strict editable install is a folder of links, and a prompt cannot name an adapter behind a link out of its folder.
_HERE = Path(__file__).resolve().parent


def model_dir() -> Path:
    """The model folder that is shipped: shaped like SDXL, 256×256 pixels."""
    return _HERE / "model"


def adapters_dir() -> Path:
    """The folder of its adapters."""
    return _HERE / "adapters"


def diffusers_folder() -> Path:
    """The same model for torch, made from the shipped one at first use and kept in the cache.

    Raises MissingExtraError without lorablend[convert].
    """
    import hashlib

    from lorablend.convert.restore import restore
    from lorablend.engine.pipeline import default_cache_dir

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

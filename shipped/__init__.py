"""The model and the adapters that come with lorablend, so that everything works offline."""

from pathlib import Path

__all__ = ["adapters_dir", "model_dir"]


# A strict editable install is a folder of links, and a prompt cannot name an adapter behind a link out of its folder.
_HERE = Path(__file__).resolve().parent


def model_dir() -> Path:
    """The model folder that is shipped: shaped like SDXL, 256×256 pixels."""
    return _HERE / "model"


def adapters_dir() -> Path:
    """The folder of its adapters."""
    return _HERE / "adapters"

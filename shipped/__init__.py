"""The model and the adapters that come with lorablend, so that everything works without a network."""

from pathlib import Path

__all__ = ["adapters_dir", "model_dir"]


# A strict editable install is a folder of links, and a prompt cannot name an adapter whose link leaves its folder.
_HERE = Path(__file__).resolve().parent


def model_dir() -> Path:
    """The folder of the shipped model: SDXL's architecture, small, for 256×256 pixels."""
    return _HERE / "model"


def adapters_dir() -> Path:
    """The folder of the adapters for the shipped model."""
    return _HERE / "adapters"

"""The embedded model and its adapters: for now a stand-in with random weights, see README.md beside this file."""

from pathlib import Path

__all__ = ["adapters_dir", "model_dir"]


def model_dir() -> Path:
    """The model folder that is shipped: shaped like SDXL, 256×256 pixels."""
    return Path(__file__).parent / "model"


def adapters_dir() -> Path:
    """The folder of its adapters."""
    return Path(__file__).parent / "adapters"

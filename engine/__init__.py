"""Pictures with OpenVINO: the live runtime with its sockets, the GenAI runtime, and baking.

The names are imported when they are first used, so that `lorablend.engine.settings`, which the command line's help
needs, loads without OpenVINO.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lorablend.engine import _quiet  # noqa: F401 - must come before any import of OpenVINO

if TYPE_CHECKING:
    from lorablend.engine.disk_cache import default_cache_dir
    from lorablend.engine.model_folder import ModelFolder
    from lorablend.engine.pipeline import Pipeline
    from lorablend.engine.request import Inputs, Request, Result, Step

__all__ = ["Inputs", "ModelFolder", "Pipeline", "Request", "Result", "Step", "default_cache_dir"]

_MODULES = {
    "Inputs": "request",
    "ModelFolder": "model_folder",
    "Pipeline": "pipeline",
    "Request": "request",
    "Result": "request",
    "Step": "request",
    "default_cache_dir": "disk_cache",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

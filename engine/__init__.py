"""Pictures with OpenVINO: the live runtime with its sockets, the GenAI runtime, and baking."""

from lorablend.engine import _quiet  # noqa: F401 - must come before any import of OpenVINO
from lorablend.engine.disk_cache import default_cache_dir
from lorablend.engine.model_folder import ModelFolder
from lorablend.engine.pipeline import Pipeline
from lorablend.engine.request import Inputs, Request, Result, Step

__all__ = ["Inputs", "ModelFolder", "Pipeline", "Request", "Result", "Step", "default_cache_dir"]

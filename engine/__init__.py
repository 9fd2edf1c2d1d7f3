"""OpenVINO: the live runtime with sockets, the GenAI runtime, baking."""

from lorablend.engine import _quiet  # noqa: F401 - before anything that imports OpenVINO
from lorablend.engine.disk_cache import default_cache_dir
from lorablend.engine.model_folder import ModelFolder
from lorablend.engine.pipeline import Pipeline
from lorablend.engine.request import Inputs, Request, Result, Step

__all__ = ["Inputs", "ModelFolder", "Pipeline", "Request", "Result", "Step", "default_cache_dir"]

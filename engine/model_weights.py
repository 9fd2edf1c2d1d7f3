"""The weights of a model folder, read one at a time."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from lorablend.engine.graph.ir import Ir
from lorablend.engine.model_folder import ModelFolder

__all__ = ["model_weights"]


def model_weights(model_dir: Path) -> Callable[[str, str], np.ndarray | None]:
    """Return a function that reads the weight of (component, module path) as f32, or gives None for an unknown layer.

    Raises:
        ModelError: the folder is not a model.
    """
    model = ModelFolder(model_dir)
    network = cache(lambda component: Ir(model.component(component)))

    def read(component: str, path: str) -> np.ndarray | None:
        name = f"{path}.weight"
        if component not in model.components or name not in network(component).shapes:
            return None
        return network(component).read(name)

    return read

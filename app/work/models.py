"""The models that a server draws with."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import RequestError
from lorablend.engine import Pipeline

__all__ = ["Models"]


class Models:
    """The models that a server draws with, by name. The graphs of at most one model are in memory.

    Args:
        folders: The model folders; the first one is the default.
        lora_dir: Where adapters are found.
        options: Further arguments of `Pipeline`.
    """

    def __init__(self, folders: Mapping[str, Path], lora_dir: Path | None, **options: Any) -> None:
        self._folders, self._options = dict(folders), options
        self.lora_dir = lora_dir
        self._lock = threading.Lock()
        self._open: dict[str, Pipeline] = {}

    @property
    def names(self) -> list[str]:
        """All names, the default first."""
        return list(self._folders)

    def add(self, name: str, folder: Path) -> None:
        """Add a model, such as one that was just converted."""
        with self._lock:
            self._folders[name] = folder

    def remove(self, name: str) -> None:
        """Forget a model, if it is known, and release its graphs."""
        with self._lock:
            self._folders.pop(name, None)
            self._open.pop(name, None)

    def folder(self, name: str | None = None) -> Path:
        """The folder of a model, by default of the first one. Raises RequestError for an unknown name."""
        name = name or self.names[0]
        folder = self._folders.get(name)
        if folder is None:
            raise RequestError(f"there is no model {name[:80]!r}; there are {', '.join(self.names)}")
        return folder

    def get(self, name: str | None = None) -> Pipeline:
        """A pipeline to check requests with; `take` is for drawing.

        Raises RequestError for an unknown name, and ModelError for a broken folder.
        """
        name, folder = name or self.names[0], self.folder(name)
        with self._lock:
            if name not in self._open:
                self._open[name] = Pipeline(folder, lora_dir=self.lora_dir, **self._options)
            return self._open[name]

    def take(self, name: str | None = None) -> Pipeline:
        """A pipeline to draw with, for the only worker that draws: the graphs of other models are released."""
        pipeline = self.get(name)
        with self._lock:
            self._open = {one: kept for one, kept in self._open.items() if kept is pipeline}
        return pipeline

"""Boards that were saved under a name: one JSON file each, in the folder `styles` of the data folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lorablend.adapters.errors import RequestError

__all__ = ["Styles"]

_LONGEST = 60  # characters


class Styles:
    """The styles in `folder`, which is made when the first one is saved."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """In the order of the alphabet; files that are no style are left out."""
        found = (self._read(path) for path in self._folder.glob("*.json"))
        return sorted((str(form["name"]) for form in found if form), key=str.casefold)

    def save(self, name: str, blend: dict[str, Any]) -> None:
        """Keep a blend's JSON form, in the place of one of that name. Raises RequestError for a name that is none."""
        name = " ".join(name.split())
        if not name or len(name) > _LONGEST or not name.isprintable():
            raise RequestError(f'a style cannot be called "{name[:_LONGEST]}"; give 1 to {_LONGEST} characters')
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(name)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps({"name": name, "blend": blend}, ensure_ascii=False), "utf-8")
        os.replace(partial, path)

    def load(self, name: str) -> dict[str, Any]:
        """The blend's JSON form. Raises RequestError if there is no such style."""
        form = self._read(self._path(name))
        if form is None:
            raise RequestError(f'there is no style "{name[:_LONGEST]}"; choose one from the list')
        return form["blend"]

    def delete(self, name: str) -> None:
        """Raises RequestError if there is no such style."""
        self.load(name)
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{quote(name, safe=' ').replace('.', '%2E')}.json"

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            form = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return form if isinstance(form, dict) and isinstance(form.get("blend"), dict) and "name" in form else None

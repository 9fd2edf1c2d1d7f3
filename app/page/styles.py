"""Boards saved under a name, each in a JSON file in the folder `styles` of the data folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lorablend.adapters.errors import RequestError
from lorablend.adapters.files.atomic import atomic_write

__all__ = ["Styles"]

_LONGEST = 60  # characters


class Styles:
    """The styles in `folder`, which is created when the first one is saved."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """All names in alphabetical order; files that are not styles are left out."""
        forms = (self._read(path) for path in self._folder.glob("*.json"))
        return sorted((str(form["name"]) for form in forms if form), key=str.casefold)

    def save(self, name: str, blend: dict[str, Any]) -> None:
        """Save a blend's JSON form, replacing a style of the same name. Raises RequestError for an invalid name."""
        name = " ".join(name.split())
        if not name or len(name) > _LONGEST or not name.isprintable():
            raise RequestError(f'a style cannot be called "{name[:_LONGEST]}"; give 1 to {_LONGEST} characters')
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._path(name)) as part:
            part.write_text(json.dumps({"name": name, "blend": blend}, ensure_ascii=False), "utf-8")

    def load(self, name: str) -> dict[str, Any]:
        """The JSON form of the blend. Raises RequestError if there is no style of this name."""
        form = self._read(self._path(name))
        if form is None:
            raise RequestError(f'there is no style "{name[:_LONGEST]}"; choose one from the list')
        return form["blend"]

    def delete(self, name: str) -> None:
        """Delete a style. Raises RequestError if there is none of this name."""
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

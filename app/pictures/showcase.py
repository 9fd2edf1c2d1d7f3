"""What the demo shows: the contents of `showcase.json` next to the shipped adapters."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import ModelError

__all__ = ["Showcase", "ShowcaseEntry", "Weights", "read_showcase"]


Weights = tuple[tuple[str, float], ...]  # adapter's name, weight


@dataclass(frozen=True, kw_only=True)
class ShowcaseEntry:
    """One adapter, or two that are blended.

    Attributes:
        adapters: One or two names.
        label: The caption on the sheet.
        prompt: Replaces the showcase's own prompt, such as for an adapter that teaches a new object.
    """

    adapters: tuple[str, ...]
    label: str
    prompt: str | None = None


@dataclass(frozen=True, kw_only=True)
class Showcase:
    """What the demo shows.

    Attributes:
        about: One or two sentences for the reader.
        prompt, seed, steps, guidance: The settings of every picture.
        adapters: Each shown alone.
        blends: Pairs of adapters.
        shares: The weight of the second adapter in each picture of a blend, 0 to 1; the first one has the rest.
    """

    about: str
    prompt: str
    seed: int
    steps: int
    guidance: float
    adapters: tuple[ShowcaseEntry, ...]
    blends: tuple[ShowcaseEntry, ...]
    shares: tuple[float, ...]


def read_showcase(path: Path) -> Showcase:
    """Read `showcase.json`, which is next to the demo's adapters.

    `label` and `prompt` of an adapter or a blend may be left out; the label then consists of the names.

    Raises:
        ModelError: The file is missing or invalid, so the installation is broken.
    """
    try:
        form: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        form["adapters"] = tuple(_entry({"adapters": [entry.pop("adapter")], **entry}) for entry in form["adapters"])
        form["blends"] = tuple(_entry(entry) for entry in form["blends"])
        if any(len(blend.adapters) != 2 for blend in form["blends"]):
            raise ValueError("a blend does not have two adapters")
        form["shares"] = tuple(form["shares"])
        return Showcase(**form)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"the demo's {path.name} cannot be used ({error}); reinstall lorablend") from error


def _entry(form: Mapping[str, Any]) -> ShowcaseEntry:
    names = tuple(form["adapters"])
    return ShowcaseEntry(**{"label": " and ".join(names), **form, "adapters": names})

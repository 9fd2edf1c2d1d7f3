"""What the demo shows, as `showcase.json` beside the shipped adapters says it."""

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
    """One adapter, or two that are blended. prompt: in place of the showcase's own, such as one with a new object."""

    adapters: tuple[str, ...]
    label: str
    prompt: str | None = None


@dataclass(frozen=True, kw_only=True)
class Showcase:
    """What the demo shows. about: one sentence or two for the reader.

    shares: of the second adapter in each picture of a blend, 0 to 1; the first one has the rest of the weight.
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
    """Read what the demo shows from `showcase.json` beside its adapters.

    `label` and `prompt` of an adapter or a blend may be left out: the label is then made of the names. Raises
    ModelError for a file that is missing or makes no sense, which is a broken installation.
    """
    try:
        form: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        form["adapters"] = tuple(_variant({"adapters": [one.pop("adapter")], **one}) for one in form["adapters"])
        form["blends"] = tuple(_variant(one) for one in form["blends"])
        if any(len(blend.adapters) != 2 for blend in form["blends"]):
            raise ValueError("a blend is not of two adapters")
        form["shares"] = tuple(form["shares"])
        return Showcase(**form)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"the demo's {path.name} cannot be used ({error}); reinstall lorablend") from error


def _variant(form: Mapping[str, Any]) -> ShowcaseEntry:
    names = tuple(form["adapters"])
    return ShowcaseEntry(**{"label": " and ".join(names), **form, "adapters": names})

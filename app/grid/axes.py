"""The axes of a grid, and how they are written.

    weight:ink=0,0.5,1                 the weight of one adapter, which joins the blend if it is not in it
    weight=0..1:5                      all weights of the blend, times 0, 0.25, 0.5, 0.75, 1
    steps=4,8,20   guidance=2,5        a setting; the names are those of the command line's options
    checkpoint=run/*.safetensors       adapter files, or names in the folder of adapters; weight:checkpoint is theirs
    prompt=fox|wolf|bear               the first word is searched in the prompt, and the others replace it

Numbers may also be ranges: first..last:count, or first..last for whole numbers.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from lorablend.adapters.errors import BlendError, RequestError
from lorablend.adapters.files.find import find_adapter
from lorablend.adapters.forms import NUMBER, did_you_mean, to_number
from lorablend.adapters.wording import shown
from lorablend.engine.settings import SETTINGS, Setting

__all__ = ["AXES", "MAX_PICTURES", "Axis", "Value", "parse_axis"]

_SWEPT: Mapping[str, Setting] = {setting.axis: setting for setting in SETTINGS.values() if setting.sweep}

AXES: Mapping[str, str] = {
    "weight": "weight:ink=0,0.5,1",
    **{axis: f"{axis}={setting.sweep}" for axis, setting in _SWEPT.items()},
    "checkpoint": "checkpoint=run/*.safetensors",
    "prompt": "prompt=fox|wolf|bear",
}
"""Name -> an example."""

MAX_PICTURES = 100

Value: TypeAlias = int | float | str | Path

_WHOLE = {axis for axis, setting in _SWEPT.items() if setting.kind is int}
_NUMBERS = {axis for axis, setting in _SWEPT.items() if setting.kind is float} | {"weight"}
_RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})(?::(\d{{1,9}}))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One thing that a grid sweeps, and its values, all different.

    Attributes:
        name: One of `AXES`.
        adapter: The adapter whose weight is swept: its name or file, or "checkpoint". None is all weights of the blend,
            and the values are then factors.

    Raises:
        RequestError: the name is unknown, or there are no values.
    """

    name: str
    values: tuple[Value, ...]
    adapter: str | None = None

    def __post_init__(self) -> None:
        if self.name not in AXES:
            raise RequestError(f'a grid has no axis "{shown(self.name)}"; {did_you_mean(self.name, AXES)}')
        object.__setattr__(self, "values", tuple(self.values))
        if not self.values or (self.name == "prompt" and not self.values[0]):
            raise RequestError(f"{self.name} has no values; write {AXES[self.name]}")
        seen: set[Value] = set()
        for value in self.values:
            if value in seen:
                raise RequestError(f"{self.key} has {shown(value)} twice; give each value once")
            seen.add(value)

    @property
    def key(self) -> str:
        """The text before the equals sign."""
        return self.name if self.adapter is None else f"{self.name}:{shown(self.adapter)}"

    @property
    def argument(self) -> str | None:
        """The argument of `Pipeline.generate` that takes the values; None where they change the blend or a prompt."""
        return _SWEPT[self.name].name if self.name in _SWEPT else None

    @property
    def title(self) -> str:
        """The swept thing in words."""
        if self.name == "prompt":
            return f"in place of “{self.values[0]}”"
        if self.name != "weight":
            return self.name
        if self.adapter is None:
            return "all weights, times"
        return f"weight of {Path(self.adapter).name.removesuffix('.safetensors')}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The values as text; files by their names, with their folders where two names are the same."""
        if self.name == "checkpoint":
            paths = [Path(str(value)) for value in self.values]
            stems = {path.stem for path in paths}
            parts = 1 if len(stems) == len(paths) else 2
            return tuple("/".join(path.with_suffix("").parts[-parts:]) for path in paths)
        texts = (f"{value:.6g}" if isinstance(value, float) else str(value) for value in self.values)
        return tuple(text.strip() or "nothing" for text in texts)

    @property
    def phrases(self) -> tuple[str, ...]:
        """The labels with the title: "weight of ink 0.5", "seed 7", "wolf"."""
        return self.labels if self.name == "prompt" else tuple(f"{self.title} {label}" for label in self.labels)


def parse_axis(text: str, lora_dir: Path | None = None) -> Axis:
    """Read "steps=4,8,20" and the other forms above.

    Args:
        text: One axis.
        lora_dir: Where checkpoints are found by name.

    Raises:
        RequestError: the text is not an axis.
        BlendError: a checkpoint does not exist.
    """
    # An adapter's name may contain an equals sign, its weights do not.
    head, equals, rest = text.rpartition("=") if text.startswith("weight:") else text.partition("=")
    name, colon, adapter = head.partition(":")
    name = name.strip()
    if not equals or (colon and (name != "weight" or not adapter.strip())):
        raise RequestError(f'"{shown(text)}" is not an axis; write {AXES.get(name, AXES["steps"])}')
    values: Iterable[Value]
    if name in _WHOLE:
        values = [_whole(name, number) for number in _numbers(name, rest)]
    elif name in _NUMBERS:
        values = _numbers(name, rest)
    elif name == "prompt":
        values = rest.split("|")
    elif name == "checkpoint":
        values = [path for item in _items(rest) for path in _files(item, lora_dir)]
    else:
        values = _items(rest)
    return Axis(name=name, values=tuple(values), adapter=adapter.strip() or None)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _numbers(name: str, text: str) -> Iterator[float]:
    """Numbers, and ranges of them: "0..1:5" is five from 0 to 1, "1..4" four whole ones."""
    for item in _items(text):
        ends = _RANGE.fullmatch(item)
        if not ends:
            try:
                yield to_number(item, name)
            except BlendError as error:
                raise RequestError(f"{error}; write {AXES[name]}") from None
            continue
        first, last = float(ends[1]), float(ends[2])
        if not ends[3] and name not in _WHOLE:
            raise RequestError(f'{name} "{item}" does not say how many; write {item}:5 for five values')
        count = int(ends[3] or abs(last - first) + 1)
        if not 2 <= count <= MAX_PICTURES:
            raise RequestError(f'{name} "{item}" has {shown(count)} values; give 2 to {MAX_PICTURES}')
        yield from (round(float(number), 9) for number in np.linspace(first, last, count))  # 0.3, not 0.300…004


def _whole(name: str, number: float) -> int:
    if number != int(number):
        raise RequestError(f"{name} has {number:g}, which is not a whole number; write {AXES[name]}")
    return int(number)


def _files(item: str, lora_dir: Path | None) -> Iterable[Path]:
    """The files that one entry names: a file, a pattern, or a name in the folder of adapters."""
    item = os.path.expanduser(item)
    if os.path.exists(item) or not glob.has_magic(item):
        return [find_adapter(item, lora_dir)]
    paths = [Path(path) for path in glob.glob(item, recursive=True) if path.lower().endswith(".safetensors")]
    if not paths:
        raise BlendError(f"{shown(item)} matches no .safetensors file; give another pattern, or names with commas")
    return sorted(paths, key=_counted)


def _counted(path: Path) -> list[str | int]:
    """A sorting key that puts 10 after 2."""
    parts = re.split(r"(\d+)", path.as_posix().casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]

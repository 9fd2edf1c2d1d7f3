"""What was found in a picture, collected value by value: one that does not fit is left out and named."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lorablend.adapters.errors import RequestError
from lorablend.adapters.wording import shown
from lorablend.app.pictures.metadata.samplers import read_schedule, read_scheduler
from lorablend.app.pictures.record import Record
from lorablend.engine.settings import SETTINGS

__all__ = ["START_LOST", "Found", "Mention", "is_nothing", "number", "stem"]

START_LOST = "the picture that it started from is not in the file"
# Words by which programs say that something was not used, or is the model's own.
_NOTHING = frozenset(
    ("", "none", "null", "false", "off", "[]", "{}", "n/a", "undefined", "default", "default (model)", "automatic")
)
_SUFFIX = re.compile(r"\.(safetensors|ckpt|pt|pth|bin|sft|gguf)$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Mention:
    """An adapter as a picture names it.

    Attributes:
        name: Its name, without folder and ending.
        weight: None if the picture does not say it.
        fields: What else an item of a blend has, such as `text_encoder` or `blocks`.
        digest: The first digits of its hash, or "".
        is_file: Whether the name is its file's, rather than its title on an image site.
    """

    name: str
    weight: float | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    is_file: bool = True


@dataclass
class Found:
    """What a picture says.

    Attributes:
        program: The program that wrote it.
        settings: Fields of a `Draw`, all of which it accepts; adapters and model by their names in the picture.
        hashes: The first digits of adapters' hashes, by their names.
        missing: One line for each part that is lost, or that is not done here.
        text: The text that it was read from.
        record: Ours, if it is our own picture.
    """

    program: str
    settings: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    text: str = ""
    record: Record | None = None
    _said: set[str] = field(default_factory=set, repr=False)

    def lacks(self, line: str) -> None:
        """Add a line, once."""
        if line not in self._said:
            self._said.add(line)
            self.missing.append(line)

    def ignores(self, key: object, value: object = "") -> None:
        """Say that a setting of the picture changes nothing here."""
        what = f"{shown(key)} ({shown(_short(value))})" if value not in ("", True) else shown(key)
        self.lacks(f"{what} is not done here")

    def take(self, name: str, value: Any, key: str = "") -> None:
        """Take a setting if it fits.

        Args:
            name: One of `SETTINGS`.
            value: As the program wrote it: numbers may be texts.
            key: What the program calls it, for messages.
        """
        setting, key = SETTINGS[name], key or name.replace("_", " ")
        if value is None or (setting.kind is not str and is_nothing(value)):
            return
        try:
            read = _as(setting.kind, value)
            checked = setting.checked(read)
            if setting.longest and isinstance(checked, str) and len(checked) > setting.longest:
                raise RequestError("too long")
        except (RequestError, ValueError, TypeError, OverflowError):
            text = shown(_short(value))
            fits = f"is not {setting.range}" if setting.range and _is_plain_number(value) else "cannot be read"
            if setting.longest:
                fits = f"has more than {setting.longest:,} characters, or broken ones"
            self.lacks(f'{key.lower()} "{text}" {fits}; it is left out')
            return
        self.settings[name] = checked

    def take_size(self, width: Any, height: Any, key: str = "size") -> None:
        """Take width and height, or neither."""
        before = len(self.missing)
        for name, value in (("width", width), ("height", height)):
            self.take(name, value, name if key == "size" else key)
        if len(self.missing) > before:
            self.settings.pop("width", None)
            self.settings.pop("height", None)

    def take_sampler(self, sampler: Any, schedule: Any = None) -> None:
        """Take the scheduler and the spacing that a sampler's and a schedule's names stand for."""
        if isinstance(sampler, str) and not is_nothing(sampler):
            scheduler, own = read_scheduler(sampler)
            if scheduler is None:
                self.lacks(f"the sampler {shown(_short(sampler))} is not here; the model's own is used")
            else:
                self.settings["scheduler"] = scheduler
            schedule = own if is_nothing(schedule) else schedule
        if isinstance(schedule, str) and not is_nothing(schedule):
            known, spacing = read_schedule(schedule)
            if not known:
                self.lacks(f"the schedule type {shown(_short(schedule))} is not here; the model's own is used")
            elif spacing is not None:
                self.settings["spacing"] = spacing

    def take_model(self, name: Any) -> None:
        if isinstance(name, str) and not is_nothing(name):
            self.settings["model"] = stem(name)[:200]

    def take_adapters(self, mentions: Iterable[Mention], modes: Mapping[str, Any] | None = None) -> None:
        """Add adapters to the blend: each with its weight, or named as missing.

        Args:
            mentions: Each adapter once.
            modes: The blend's other fields.
        """
        blend = self.settings.get("blend", {})
        items: list[dict[str, Any]] = list(blend.get("items", ()))
        for mention in mentions:
            if mention.weight is None or not math.isfinite(mention.weight):
                self.lacks(f"the adapter {shown(mention.name)} is named without a weight; it is left out")
                continue
            items.append({"adapter": mention.name, "weight": mention.weight, **mention.fields})
            if mention.digest:
                self.hashes[mention.name] = mention.digest
        if items or modes:
            self.settings["blend"] = {**blend, **(modes or {}), "items": items}


def is_nothing(value: object) -> bool:
    """Whether a value says that something was not used."""
    if value is None or value is False:
        return True
    if isinstance(value, str):
        return value.strip().casefold() in _NOTHING
    return isinstance(value, list | dict | tuple) and not value


def number(value: object) -> float | None:
    """The number that a value is or spells; None for anything else, also if it is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        read = float(value)
    except (ValueError, OverflowError):
        return None
    return read if math.isfinite(read) else None


def stem(name: str) -> str:
    """A file's name without folders and without the ending of a model's file; never with a broken character."""
    name = name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    base = name.replace("\\", "/").rstrip("/").rpartition("/")[2].strip()
    return _SUFFIX.sub("", base) or name


def _as(kind: type, value: Any) -> Any:
    """The value as a kind of setting. Whole numbers never go by way of a float, which would round a seed."""
    if isinstance(value, bool):
        raise TypeError
    if kind is str:
        return value
    if kind is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(float(part) for part in parts)
    text = value.strip() if isinstance(value, str) else value
    if kind is int:
        if isinstance(text, str):
            whole = re.fullmatch(r"([+-]?\d{1,30})(\.0*)?", text, re.ASCII)
            if not whole:
                raise ValueError
            return int(whole[1])
        if isinstance(text, float) and not text.is_integer():
            raise ValueError
        return int(text)
    return float(text)


def _is_plain_number(value: object) -> bool:
    return number(value) is not None


def _short(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"

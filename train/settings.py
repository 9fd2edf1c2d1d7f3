"""A setting of a training as every face shows it: read once from the declaration in `TrainConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

__all__ = ["Face", "TrainSetting", "settings_of"]

_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "max_length": "maxLength",
}


@dataclass(frozen=True, kw_only=True)
class Face:
    """What a field's annotation adds to pydantic's own declaration, for people.

    Attributes:
        label: The name of the field's box on the page.
        unset: What None, or an empty tuple, stands for.
        unit: Of the number.
        metavar: Stands for the value in the help of the command line, where the type does not say enough.
        no_page: Why the page has no box for the field.
        no_order: Why neither the page nor REST can set the field.
    """

    label: str = ""
    unset: str = ""
    unit: str = ""
    metavar: str = ""
    no_page: str = ""
    no_order: str = ""


@dataclass(frozen=True, kw_only=True)
class TrainSetting:
    """One field of a configuration.

    Attributes:
        kind: The type of a value that is not None: bool, int, float, str, Path, or tuple for several texts.
        default: Its value where it is not given; None also where it has to be given, see `required`.
        choices: The values that a field of words may have; empty for any other field.
        bounds: The limits of a value, by the names that JSON Schema has for them.
    """

    name: str
    kind: type
    default: Any
    required: bool
    help: str
    face: Face
    choices: tuple[str, ...] = ()
    bounds: Mapping[str, Any] = field(default_factory=dict)

    @property
    def on_page(self) -> bool:
        return not (self.face.no_page or self.face.no_order)

    @property
    def flag(self) -> str:
        """The option of the command line; a switch has a second one that turns it off."""
        words = self.name.replace("_", "-")
        return f"--{words}/--no-{words}" if self.kind is bool else f"--{words}"

    @property
    def metavar(self) -> str | None:
        """What stands for the value in the help of the command line; None for a switch."""
        if self.kind is bool:
            return None
        return self.face.metavar or "|".join(self.choices) or {int: "N", float: "X"}.get(self.kind, "TEXT")

    @property
    def default_text(self) -> str:
        """The default in words; "" for a field that has to be given."""
        if self.required:
            return ""
        if self.default is None or self.default == ():
            return self.face.unset
        if self.kind is bool:
            return "yes" if self.default else "no"
        return f"{self.default:g}".replace("e-0", "e-") if self.kind is float else str(self.default)

    @property
    def range_text(self) -> str:
        """The limits of a number in words; "" where there are none."""
        low, high = self.bounds.get("minimum"), self.bounds.get("maximum")
        above, below = self.bounds.get("exclusiveMinimum"), self.bounds.get("exclusiveMaximum")
        if self.kind is int and below is not None:
            high, below = below - 1, None
        unit = f" {self.face.unit}" if self.face.unit else ""
        if low is not None and high is not None:
            text = f"{low} to {high}{unit}"
        elif low is not None and below is not None:
            text = f"{low}{unit} or more, less than {below}"
        elif low is not None:
            text = f"{low}{unit} or more"
        else:
            parts = [
                f"more than {above}" if above is not None else "",
                f"less than {below}" if below is not None else "",
            ]
            text = ", ".join(part for part in parts if part) + (unit if any(parts) else "")
        multiple = self.bounds.get("multipleOf")
        return text if multiple is None else f"{text}, a multiple of {multiple}"

    @property
    def text(self) -> str:
        """Help, limits and default, in sentences."""
        limits = self.range_text
        parts = [self.help, f"{limits[:1].upper()}{limits[1:]}." if limits else ""]
        parts.append(f"Default: {self.default_text}." if self.default_text else "")
        return " ".join(part for part in parts if part)


def settings_of(model: type[BaseModel]) -> Mapping[str, TrainSetting]:
    """The fields of a configuration, in their order."""
    settings = {}
    for name, info in model.model_fields.items():
        kinds = [kind for kind in get_args(info.annotation) if kind is not NoneType]
        kind = kinds[0] if NoneType in get_args(info.annotation) else info.annotation
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        face = next((item for item in info.metadata if isinstance(item, Face)), Face())
        limits = {
            schema: value
            for limit, schema in _BOUNDS.items()
            for item in info.metadata
            if (value := getattr(item, limit, None)) is not None
        }
        settings[name] = TrainSetting(
            name=name,
            kind=str if choices else (get_origin(kind) or kind),
            default=None if info.is_required() else info.default,
            required=info.is_required(),
            help=info.description or "",
            face=face,
            choices=choices,
            bounds=limits,
        )
    return settings

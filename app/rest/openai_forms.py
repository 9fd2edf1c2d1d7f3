"""The requests of OpenAI's image API, and how they become a `Draw`.

Besides OpenAI's own fields there are lorablend's, at the top level, where `extra_body` of OpenAI's client puts them,
and those of OpenVINO Model Server (width, height, num_images_per_prompt, rng_seed, lora_alphas). Fields without effect
here, such as quality, are ignored.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from lorablend.app.orders.draw import Draw, Seed, Text
from lorablend.app.pictures.uploads import MAX_PIXELS, Uploads
from lorablend.app.rest.errors import ModelNotFoundError, ParameterError, draw_of
from lorablend.app.rest.setting_fields import body_of
from lorablend.app.work.models import Models
from lorablend.engine.pixel_budget import decoding
from lorablend.engine.settings import SETTINGS

__all__ = ["ImageForm", "edit_schema", "fields_of", "mask_of"]

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
# Settings that other fields say too, or that depend on the mask; the others are passed on as they are.
_CONVERTED = ("prompt", "seed", "width", "height", "strength", "batch")
_PASSED_ON = {s.openai: s for s in SETTINGS.values() if s.name not in _CONVERTED and "openai" not in s.absent}
_PassedOn: type[BaseModel] = body_of("_PassedOn", _PASSED_ON)
_AS_JSON = ("loras", "lora_alphas", *(name for name, setting in _PASSED_ON.items() if setting.kind is tuple))
_WORDS = ("name", "adapter", "mask")  # of an entry of loras; never numbers, whatever they look like
Count = Annotated[int, Field(ge=1, le=10)]


class ImageForm(_PassedOn):
    """The fields of both requests, besides the settings that are passed on.

    Attributes:
        loras: [{name, weight}], {name: weight}, or items of a blend, and `<lora:…>` tags.
        strength: Of an edit; 1 if there is a mask and none is given.
    """

    model_config = ConfigDict(extra="ignore", protected_namespaces=(), allow_inf_nan=False)

    prompt: Text
    model: str | None = None
    n: Count | None = None
    size: str | None = None
    background: str | None = None
    quality: str | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None

    width: int | None = None
    height: int | None = None
    num_images_per_prompt: Count | None = None
    seed: Seed | None = None
    rng_seed: Seed | None = None
    strength: float | None = None
    loras: list[Any] | dict[str, Any] | None = None
    lora_alphas: dict[str, Any] | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _empty(cls, value: Any, field: ValidationInfo) -> Any:
        """Forms and some clients send "" for fields they leave out; only a prompt may be empty."""
        return None if value == "" and field.field_name != "prompt" else value

    @field_validator(*_AS_JSON, mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("write it as JSON") from None

    def draw(self, models: Models, image: str | None = None, mask: str | None = None) -> Draw:
        """The drawing; `image` and `mask` are names of uploads. Raises ModelNotFoundError and ParameterError."""
        if self.model is not None and self.model not in models.names:
            text = f"there is no model {self.model[:80]!r}; there are {', '.join(models.names)}"
            raise ModelNotFoundError(text)
        if self.background == "transparent":
            raise ParameterError("background", "transparent backgrounds cannot be drawn; leave background out")
        width, height = self._size()
        fields = {setting.name: getattr(self, field) for field, setting in _PASSED_ON.items()} | {
            "seed": self.rng_seed if self.seed is None else self.seed,
            "strength": self.strength if self.strength is not None or mask is None else 1.0,
            "width": width,
            "height": height,
            "count": _one("num_images_per_prompt", self.num_images_per_prompt, f"n is {self.n}", self.n),
            "image": image,
            "mask": mask,
            "model": self.model,
            "format": self.output_format,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        return draw_of({"prompt": self.prompt, "blend": self._blend(), **given})

    def _size(self) -> tuple[int | None, int | None]:
        if self.size in (None, "auto"):
            return self.width, self.height
        sides = _SIZE.fullmatch(str(self.size))
        if not sides:
            raise ParameterError(
                "size", f"size is {str(self.size)[:40]!r}; write WIDTHxHEIGHT, such as 1024x1024, or auto"
            )
        origin = f"size is {self.size}"
        return _one("width", self.width, origin, int(sides[1])), _one("height", self.height, origin, int(sides[2]))

    def _blend(self) -> list[Any]:
        loras = self.loras or []
        entries = [[name, weight] for name, weight in loras.items()] if isinstance(loras, dict) else list(loras)
        entries += [[name, weight] for name, weight in (self.lora_alphas or {}).items()]
        return [_entry(entry) for entry in entries]


def _one(name: str, value: int | None, origin: str, other: int | None) -> int | None:
    """The value of two fields for the same thing. Raises ParameterError if they differ."""
    if value is not None and other is not None and value != other:
        raise ParameterError(name, f"{name} is {value}, but {origin}; give one of the two")
    return other if value is None else value


def fields_of(sent: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The fields of a multipart form for `ImageForm`.

    OpenAI's client spells lists and dicts with brackets: timesteps[]=999, loras[ink]=0.8, loras[][name]=ink.

    Raises:
        ParameterError: the brackets cannot be read back.
    """
    fields: dict[str, Any] = {}
    spelled: dict[str, dict[str, list[str]]] = {}
    for key, value in sent:
        name, bracket, rest = key.partition("[")
        if name in _AS_JSON:
            spelled.setdefault(name, {}).setdefault(bracket + rest, []).append(value)
        else:
            fields[key] = value
    return fields | {name: _from_brackets(name, columns) for name, columns in spelled.items()}


def _from_brackets(name: str, columns: Mapping[str, list[str]]) -> Any:
    """The list or dict of a field. columns: its values in their order, by the brackets after its name."""
    lengths = {len(values) for values in columns.values()}
    if list(columns) == ["[]"]:
        return columns["[]"]
    if lengths == {1} and list(columns) == [""]:
        return columns[""][0]
    if lengths == {1} and all(re.fullmatch(r"\[[^\[\]]+\]", key) for key in columns):
        return {key[1:-1]: _number(values[0]) for key, values in columns.items()}
    # Entries are split into columns, which can be joined again only if every entry has the same keys.
    if len(lengths) == 1 and all(re.fullmatch(r"\[\]\[\w+\]", key) for key in columns):
        keys = [key[3:-1] for key in columns]
        rows = [dict(zip(keys, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return [{key: text if key in _WORDS else _number(text) for key, text in row.items()} for row in rows]
    raise ParameterError(name, f"{name} cannot be read from the fields of this form; write {name} as JSON text")


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # the blend's reader refuses it


def _entry(entry: Any) -> Any:
    """An entry of `Draw.blend`, which checks the rest."""
    if isinstance(entry, Mapping) and "name" in entry:
        rest = {key: value for key, value in entry.items() if key not in ("name", "scale")}
        weight = {"weight": entry["scale"]} if "scale" in entry else {}
        return {**weight, **rest, "adapter": entry["name"]}
    return entry


def mask_of(uploads: Uploads, name: str, *, of_image: bool = False) -> str | None:
    """The upload to use as a mask, white where to repaint.

    OpenAI's rule is that transparent pixels are repainted; in a picture without any, white ones are. With of_image the
    upload is the input picture itself, which is a mask only if a part of it is transparent; otherwise None.
    """
    with decoding(MAX_PIXELS):
        picture = uploads.open(name)
        if picture.mode in ("RGBA", "LA"):
            alpha = picture.getchannel("A")
            if alpha.getextrema()[0] != 255:
                return uploads.keep(_png(ImageOps.invert(alpha)))
        return None if of_image else uploads.keep(_png(picture.convert("L")))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def edit_schema() -> dict[str, Any]:
    """The body of an edit, for /openapi.json: the form's fields as text, and the files."""
    file = {"type": "string", "format": "binary"}
    fields = {name: {"type": "string"} for name in ImageForm.model_fields}
    schema = {"type": "object", "required": ["prompt", "image"], "properties": {**fields, "image": file, "mask": file}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}

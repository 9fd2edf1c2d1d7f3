"""The requests of A1111's clients, and how they become a `Draw`.

`lorablend.engine.settings` declares the names and A1111's defaults of settings. Any field may be null, which means its
default. Unsupported fields with their default value, which every client sends, are ignored; unknown ones are named in a
warning.
Requests for something unsupported (hires fix, a refiner, tiling, face restoration, scripts, seed variations) are
refused; what else A1111 has and is not done here is named in a warning. Without a size it is the model's own, or the
input picture's.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from lorablend.adapters import parse_prompt
from lorablend.adapters.errors import RequestError
from lorablend.app.orders.draw import Draw, Text
from lorablend.app.pictures.uploads import MAX_PIXELS, Uploads
from lorablend.app.rest.a1111_silent import is_none, silent_warnings, with_silent
from lorablend.app.rest.errors import ParameterError, draw_of
from lorablend.app.rest.setting_fields import body_of
from lorablend.app.service import Service
from lorablend.engine.given import on_white
from lorablend.engine.mask import greys
from lorablend.engine.pixel_budget import decoding
from lorablend.engine.schedulers import SCHEDULERS, from_diffusers_class
from lorablend.engine.schedulers.a1111 import read_sampler, read_schedule_type
from lorablend.engine.settings import BATCH, SETTINGS

__all__ = ["ImageToImage", "TextToImage", "decode", "model_named", "sampler_of", "start_of"]

Number = Annotated[float, Field(allow_inf_nan=False)]
Table = Annotated[dict[str, Any], BeforeValidator(lambda value: {} if value == [] else value)]  # [] is PHP's for none

_MOST_STEPS = 1000
_STRETCH, _CROP, _FILL = 0, 1, 2  # values of resize_mode
_ORIGINAL = 1  # the value of inpainting_fill with which the masked part is drawn from what was there
_DONE_OPTIONS = ("sd_model_checkpoint", "CLIP_stop_at_last_layers")  # of override_settings


# Settings whose values A1111 writes in its own way; the others are passed on as they are.
_CONVERTED = ("prompt", "negative_prompt", "seed", "scheduler", "spacing", "batch")
_PASSED_ON = {s.sdapi: s for s in SETTINGS.values() if s.sdapi and s.name not in _CONVERTED}
_Sent: type[BaseModel] = with_silent(body_of("_PassedOn", _PASSED_ON))


class TextToImage(_Sent):
    """A picture from a prompt."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    prompt: Text | None = None
    negative_prompt: Text | None = None
    seed: int | None = None
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = None
    batch_size: int | None = None
    n_iter: int | None = None
    width: int | None = None
    height: int | None = None
    clip_skip: Number | None = None
    override_settings: Table | None = None
    send_images: bool | None = None
    disable_extra_networks: bool | None = None

    styles: list[Any] | None = None
    subseed_strength: Number | None = None
    seed_resize_from_h: int | None = None
    seed_resize_from_w: int | None = None
    restore_faces: bool | None = None
    tiling: bool | None = None
    enable_hr: bool | None = None
    refiner_checkpoint: str | None = None
    script_name: str | None = None
    alwayson_scripts: Table | None = None

    _said: list[str] = PrivateAttr(default_factory=list)  # what `settings` found out

    @property
    def shows_images(self) -> bool:
        """Whether the reply repeats the pictures that were sent."""
        return False

    @property
    def count(self) -> int:
        return (self.batch_size or 1) * (self.n_iter or 1)

    def draw(self, service: Service, chosen: str | None) -> Draw:
        """The drawing; `chosen` is the model that the client chose before. Raises ParameterError."""
        return draw_of(self.settings(service, chosen))

    def settings(self, service: Service, chosen: str | None) -> dict[str, Any]:
        """The fields of a `Draw`."""
        self._refuse()
        try:
            BATCH.checked(self.count)
        except RequestError:
            text = f"batch_size × n_iter is {self.count}; give {BATCH.range}"
            raise ParameterError("batch_size", text) from None
        largest = SETTINGS["seed"].high
        if self.seed is not None and largest is not None and self.seed > largest:
            raise ParameterError("seed", f"seed is {self.seed}; give at most {largest}")
        overrides = self.override_settings or {}
        checkpoint = overrides.get("sd_model_checkpoint")
        chosen = chosen if chosen in service.models.names else None  # it may have been removed since
        model = chosen
        if isinstance(checkpoint, str) and not is_none(checkpoint):
            model = model_named(service, checkpoint)
        self._check_clip_skip(service, model, overrides)
        sampler, spacing = self._schedule(service, model)
        fields = self._passed_on() | {
            "negative_prompt": self.negative_prompt or None,
            "seed": None if self.seed is None or self.seed < 0 else self.seed,
            "scheduler": sampler,
            "spacing": spacing,
            "model": model,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        prompt = self.prompt or ""
        if self.disable_extra_networks:
            prompt, _ = parse_prompt(prompt)
        return {"prompt": prompt, "count": self.count, **given}

    def _schedule(self, service: Service, model: str | None) -> tuple[str | None, str | None]:
        """The scheduler and the spacing, without a spacing that the scheduler does not take: A1111 ignores it too."""
        name = self.sampler_name if self.sampler_name and not is_none(self.sampler_name) else self.sampler_index
        sampler, of_name = sampler_of(name)
        asked = _spacing_of(self.scheduler)
        spacing = of_name or asked  # in A1111 a name such as "DPM++ 2M Karras" wins
        if spacing is None:
            return sampler, None
        own = service.models.get(model).model
        info = SCHEDULERS[sampler or from_diffusers_class(own.scheduler_class, dict(own.scheduler_config))]
        if spacing in info.spacings:
            return sampler, spacing
        name = spacing if of_name else self.scheduler
        self._said.append(f"scheduler {name} is ignored: {info.label} has timesteps of its own")
        return sampler, None

    def _passed_on(self, needs: str = "") -> dict[str, Any]:
        """The settings that are passed on, with A1111's defaults. needs: only those that need this input."""
        values = {s: getattr(self, field) for field, s in _PASSED_ON.items() if s.needs == needs}
        return {s.name: s.sdapi_default if value is None else value for s, value in values.items()}

    @property
    def warnings(self) -> list[str]:
        """What is not done as A1111 would do it."""
        lines = [*self._said, *silent_warnings(self, from_image=isinstance(self, ImageToImage))]
        if styles := [str(style)[:80] for style in self.styles or () if not is_none(style)]:
            lines.append(f"styles not found, so that they change nothing: {', '.join(styles)}")
        if self.disable_extra_networks:
            lines.append("disable_extra_networks: the adapters in the prompt are left out")
        options = (self.override_settings or {}).items()
        plain = (*_DONE_OPTIONS, "sd_vae")
        ignored = [name for name, value in options if name not in plain or (name == "sd_vae" and not _is_own(value))]
        if ignored:
            lines.append(f"override_settings without effect here: {', '.join(ignored)[:400]}")
        unknown = [name for name, value in (self.model_extra or {}).items() if value and not is_none(value)]
        if unknown:
            lines.append(f"not known here: {', '.join(unknown)[:400]}")
        return lines

    def _refuse(self) -> None:
        """Raise ParameterError for a request that cannot be met; without it the picture would be a different one."""
        unsupported = {
            "enable_hr": self.enable_hr,
            "refiner_checkpoint": not is_none(self.refiner_checkpoint),
            "tiling": self.tiling,
            "restore_faces": self.restore_faces,
            "subseed_strength": bool(self.subseed_strength),
            "seed_resize_from_h": (self.seed_resize_from_h or 0) > 0,
            "seed_resize_from_w": (self.seed_resize_from_w or 0) > 0,
        }
        for name, is_requested in unsupported.items():
            if is_requested:
                raise ParameterError(name, f"{name} is not supported here; leave it out")
        if self.script_name and not is_none(self.script_name):
            raise ParameterError("script_name", f"script {self.script_name[:80]!r} not found; leave it out", 422)
        for name, arguments in (self.alwayson_scripts or {}).items():
            if _does_something(name, arguments):
                text = f"always on script {name[:80]!r} not found; leave it out of alwayson_scripts"
                raise ParameterError("alwayson_scripts", text, 422)
            if _is_off_by_position(arguments):
                self._said.append(f"always on script {name[:80]!r} is taken as off: its first argument is false")

    def _check_clip_skip(self, service: Service, model: str | None, overrides: Mapping[str, Any]) -> None:
        """A1111 ignores clip_skip for SDXL, which always skips a layer; with other models it changes the picture."""
        skips = [skip for skip in (self.clip_skip, overrides.get("CLIP_stop_at_last_layers")) if skip is not None]
        for skip in skips:
            if skip not in (0, 1) and service.models.get(model).model.family != "sdxl":
                raise ParameterError("clip_skip", f"clip_skip is {str(skip)[:20]}; only 1 is supported with this model")


class ImageToImage(TextToImage):
    """A picture from a picture. init_images: base64 or data URLs. mask: white parts are repainted."""

    init_images: list[str] | None = None
    resize_mode: int | None = None
    mask: str | None = None
    mask_blur: Number | None = None
    mask_blur_x: Number | None = None
    mask_blur_y: Number | None = None
    inpainting_mask_invert: int | bool | None = None
    inpainting_fill: int | None = None
    inpaint_full_res: bool | None = None
    include_init_images: bool | None = None

    def settings(self, service: Service, chosen: str | None) -> dict[str, Any]:
        """As for pictures from text, with the uploads."""
        settings = {**super().settings(service, chosen), **self._passed_on("image")}
        # A1111 runs at least one step, whatever the strength.
        steps, strength = settings["steps"], settings["strength"]
        if 0 <= strength <= 1 and 1 <= steps <= _MOST_STEPS and int(steps * strength) == 0:
            settings["strength"] = math.ceil(_MOST_STEPS / steps) / _MOST_STEPS
            self._said.append(f"denoising_strength {strength:g} leaves none of {steps} steps: one is drawn")
        return {**settings, **start_of(self, service)}

    @property
    def shows_images(self) -> bool:
        return bool(self.include_init_images)

    @property
    def warnings(self) -> list[str]:
        lines = super().warnings
        if self.resize_mode not in (None, _STRETCH, _CROP, _FILL):
            lines.append(f"resize_mode {self.resize_mode} is drawn as {_STRETCH}, stretched")
        fill = self.inpainting_fill or 0
        if fill != _ORIGINAL and (fill or self.mask):
            lines.append(f"inpainting_fill {fill} is drawn as {_ORIGINAL}: the masked part begins as it is")
        if self.mask and self.inpaint_full_res is not False:
            lines.append("inpaint_full_res is not done: the whole picture is drawn at its size, not only the mask")
        return lines


@dataclass(frozen=True)
class _Blur:
    x: float
    y: float


def start_of(form: ImageToImage, service: Service) -> dict[str, Any]:
    """The input picture and the mask, as uploads. Raises ParameterError."""
    if not form.init_images:
        raise ParameterError("init_images", "Init image not found", 404)
    if len(form.init_images) > 1:
        raise ParameterError("init_images", f"init_images has {len(form.init_images)} pictures; send one")
    with decoding(MAX_PIXELS):  # the picture, the mask, and what is made of them
        return _kept(form, service.uploads, form.init_images[0])


def _kept(form: ImageToImage, uploads: Uploads, picture: str) -> dict[str, Any]:
    keep, open_ = uploads.keep, uploads.open
    image = on_white(open_(keep(decode("init_images", picture))))
    own = image.size
    size = (form.width or own[0], form.height or own[1])
    names = {"image": keep(_png(_fitted(image, size, form.resize_mode)))}
    if form.mask:
        grey = greys(_with_alpha(open_(keep(decode("mask", form.mask)))))
        mask = Image.fromarray((grey * 255).round().astype(np.uint8))
        if form.inpainting_mask_invert:
            mask = ImageOps.invert(mask)
        mask = _fitted(mask.resize(own), size, form.resize_mode)
        blur = _blur(form)
        if blur.x or blur.y:
            mask = mask.filter(ImageFilter.GaussianBlur((blur.x, blur.y)))
        names["mask"] = keep(_png(mask))
    return names


def _with_alpha(mask: Image.Image) -> Image.Image:
    """The mask, or its alpha if that has any other values than 255: some clients send it so, and A1111 takes it."""
    if mask.mode != "RGBA" or mask.getchannel("A").getextrema() == (255, 255):
        return mask
    return mask.getchannel("A")


def _blur(form: ImageToImage) -> _Blur:
    """In pixels; mask_blur sets both directions."""
    both = form.mask_blur
    x, y = (4.0 if one is None else one for one in (form.mask_blur_x, form.mask_blur_y))
    blur = _Blur(x, y) if both is None else _Blur(both, both)
    if not (0 <= blur.x <= 256 and 0 <= blur.y <= 256):
        raise ParameterError("mask_blur", f"mask_blur is {blur.x:g}, {blur.y:g}; give 0 to 256")
    return blur


def _fitted(picture: Image.Image, size: tuple[int, int], mode: int | None) -> Image.Image:
    """The picture cropped or filled up if the mode says so; otherwise the engine stretches it."""
    low, high = SETTINGS["width"].low or 0, SETTINGS["width"].high or math.inf
    if not all(low <= side <= high for side in size):
        return picture  # the engine refuses it
    if mode == _CROP:
        return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    if mode == _FILL:
        return ImageOps.pad(picture, size, Image.Resampling.LANCZOS)
    return picture


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode(name: str, text: str) -> bytes:
    """Base64, or a data URL. Raises ParameterError."""
    data = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ParameterError(name, f"{name} is not base64; send a file's content in base64, or as a data URL") from None


def sampler_of(name: str | None) -> tuple[str | None, str | None]:
    """Our scheduler and spacing for a name such as "Euler a" or "DPM++ 2M Karras"; None is the model's own.

    Raises ParameterError, with A1111's words.
    """
    if not name or is_none(name) or name.casefold() == "automatic":
        return None, None
    scheduler, spacing = read_sampler(name)
    if scheduler is None:
        raise ParameterError("sampler_name", "Sampler not found")
    return scheduler, spacing


def _spacing_of(name: str | None) -> str | None:
    if not name or is_none(name):
        return None
    schedule_type = read_schedule_type(name)
    if schedule_type is None:
        raise ParameterError("scheduler", "Scheduler not found")
    return schedule_type.spacing


def model_named(service: Service, name: str) -> str:
    """A model by its name, or by "name.safetensors [hash]" as other servers list it. Raises ParameterError."""
    short = name.partition(" [")[0]
    short = short.removesuffix(".safetensors")
    for known in service.models.names:
        if known in (name, short):
            return known
    known = ", ".join(service.models.names)
    raise ParameterError("sd_model_checkpoint", f"there is no model {name[:80]!r}; there are {known}")


def _is_own(vae: Any) -> bool:
    """Whether the VAE that a client names is the model's own."""
    return is_none(vae) or str(vae).casefold() == "automatic"


def _does_something(script: str, arguments: Any) -> bool:
    """Whether a script would act: clients send units of ControlNet and others that are off, empty or "none"."""
    given = arguments.get("args") if isinstance(arguments, Mapping) else arguments
    if isinstance(given, Mapping):
        given = [given]
    if not isinstance(given, list):
        return bool(given)
    units = [unit for unit in given if isinstance(unit, Mapping)]
    if not units:
        return any(map(bool, given)) and not _is_false(given[0])
    switches = [unit for unit in given if isinstance(unit, bool)]  # ADetailer's first one is for the whole script
    return all(switches[:1]) and any(_acts(script, unit) for unit in units)


def _is_off_by_position(arguments: Any) -> bool:
    """Whether a script has arguments, of which the first, by the scripts' habit its switch, is off."""
    given = arguments.get("args") if isinstance(arguments, Mapping) else arguments
    is_plain = isinstance(given, list) and not any(isinstance(unit, Mapping) for unit in given)
    return is_plain and bool(given) and _is_false(given[0]) and any(map(bool, given[1:]))


def _acts(script: str, unit: Mapping[str, Any]) -> bool:
    switches = [value for key, value in unit.items() if key.casefold() in ("enabled", "enable", script.casefold())]
    if not unit or any(map(_is_false, switches)) or unit.get("weight", 1) == 0:
        return False
    names = [unit[key] for key in ("model", "module", "ad_model", "checkpoint") if key in unit]
    return not names or not all(map(is_none, names))


def _is_false(value: Any) -> bool:
    return str(value).casefold() in ("false", "0", "none", "")

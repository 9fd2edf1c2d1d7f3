"""From a picture back to the form: what it was drawn with, and what of that is missing here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from lorablend.adapters import parse_prompt
from lorablend.adapters.errors import BlendError, RequestError
from lorablend.app.library.shelf import Shelf
from lorablend.app.orders.draw import Draw
from lorablend.app.pictures.comfy import read_comfy
from lorablend.app.pictures.infotext import parse_infotext
from lorablend.app.pictures.png import texts_of
from lorablend.app.pictures.record import Record, model_name
from lorablend.app.service import Service
from lorablend.engine.schedulers import SCHEDULERS
from lorablend.engine.schedulers.a1111 import read_sampler, read_schedule_type

__all__ = ["Found", "read_picture", "reuse"]

_FILE = re.compile(r"(\d{4}-\d\d-\d\d)/(\d{6})-(\d+)-(\d+)\.\w+")  # as `Drawing` names them: day/time-job-seed


@dataclass(frozen=True)
class Found:
    """What a picture says: the drawing, and what of it is not here, one line each."""

    draw: Draw
    missing: tuple[str, ...]


def reuse(service: Service, shelf: Shelf, file: str) -> Found:
    """Of a picture in the gallery; the pictures that its job started from are found again by the job.

    Raises RequestError if it says nothing.
    """
    path = service.gallery.path(file)
    with Image.open(path) as picture:
        texts = texts_of(picture, path.name)
    if texts.record is None:
        return read_picture(service, shelf, path)
    return _from_record(service, shelf, texts.record, _request(service, file), path.suffix)


def read_picture(service: Service, shelf: Shelf, path: Path) -> Found:
    """Of any picture file of A1111, ComfyUI and their kin, or ours. Raises RequestError if it says nothing."""
    try:
        with Image.open(path) as picture:
            texts, comfy = texts_of(picture, path.name), picture.info.get("prompt")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise RequestError(f"{path.name} is not a picture that can be read; give a PNG, JPEG or WebP file") from None
    if texts.record is not None:
        return _from_record(service, shelf, texts.record, {}, path.suffix)
    if texts.parameters:
        return _from_infotext(service, shelf, texts.parameters)
    if isinstance(comfy, str):
        fields, missing = read_comfy(comfy)
        return _found(service, shelf, fields, missing, {})
    raise RequestError(f"{path.name} says nothing about how it was made; give a picture as the program saved it")


def _request(service: Service, file: str) -> dict[str, Any]:
    """What the job that drew a picture of the gallery was asked for; {} if it is not known any more."""
    name = _FILE.fullmatch(file)
    if name is None:
        return {}
    jobs = service.jobs.find(limit=1, before=int(name[3]) + 1)
    if not jobs or jobs[0].number != int(name[3]) or jobs[0].kind != "draw":
        return {}
    same = f"{datetime.fromtimestamp(jobs[0].submitted):%Y-%m-%d/%H%M%S}" == f"{name[1]}/{name[2]}"
    return jobs[0].request if same else {}


def _from_record(service: Service, shelf: Shelf, record: Record, job: dict[str, Any], suffix: str) -> Found:
    request, missing = record.request, list[str]()
    items = [dict(item) for item in request.blend["items"]]
    asked = job.get("blend", [])
    asked = asked.get("items", []) if isinstance(asked, dict) else asked
    for index, item in enumerate(items):
        mask = item.get("mask")
        if isinstance(mask, str):  # a picture, of which the record has the name alone
            known = asked[index].get("mask") if index < len(asked) and isinstance(asked[index], dict) else None
            if isinstance(known, str) and _has_upload(service, known):
                item["mask"] = known
            else:
                missing.append(f"the mask of {item['adapter']} is not in the file")
                del item["mask"]
    fields: dict[str, Any] = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "blend": request.blend | {"items": items},
        "width": request.width,
        "height": request.height,
        "steps": None if request.timesteps else request.steps,
        "timesteps": None if request.timesteps is None else list(request.timesteps),
        "guidance_scale": request.guidance_scale,
        "seed": record.seed,
        "scheduler": request.scheduler,
        "spacing": request.spacing,
        "model": record.model,
        "format": {".png": "png", ".webp": "webp"}.get(suffix.lower(), "jpeg"),
    }
    pictures = {key: job[key] for key in ("image", "mask") if key in job and _has_upload(service, job[key])}
    if request.strength is not None and "image" in pictures:
        fields |= pictures | {"strength": request.strength}
    elif request.strength is not None:
        missing.append("the picture that it started from is not in the file")
    hashes = {used.name: used.sha256 for used in record.adapters}
    found = _found(service, shelf, fields, missing, hashes)
    pipe = service.models.get(found.draw.model)
    differing = [
        f"it was drawn with {name} {was or 'by default'}, here it is {now or 'by default'}"
        for name, was, now in (
            ("the device", record.device, pipe.device),
            ("the runtime", record.runtime, pipe.runtime),
            ("the precision", record.precision, pipe.precision),
            ("max_rank", record.max_rank, pipe.max_rank),
        )
        if was != now
    ]
    return Found(found.draw, (*found.missing, *differing))


def _from_infotext(service: Service, shelf: Shelf, parameters: str) -> Found:
    said = parse_infotext(parameters)
    settings, missing = said.settings, list[str]()
    fields: dict[str, Any] = {"prompt": said.prompt, "negative_prompt": said.negative_prompt or None}
    with_tags: list[Any] = []
    try:
        fields["prompt"], with_tags = parse_prompt(said.prompt)
    except BlendError as error:
        missing.append(str(error))
    items: list[Any] = []
    for entry in with_tags:
        if isinstance(entry, tuple):
            items.append({"adapter": str(entry[0]), "weight": entry[1]})
        elif "items" in entry:
            fields["blend"] = entry
        else:
            items.append({key: value if _plain(value) else value.to_json() for key, value in entry.items()})
    fields["blend"] = fields.get("blend", {}) | {"items": items}
    for key, name in (("seed", "Seed"), ("steps", "Steps")):
        if settings.get(name, "").isdecimal():
            fields[key] = int(settings[name])
    for key, name in (("guidance_scale", "CFG scale"),):
        if re.fullmatch(r"\d+(\.\d+)?", settings.get(name, "")):
            fields[key] = float(settings[name])
    if size := re.fullmatch(r"(\d+)x(\d+)", settings.get("Size", "")):
        fields |= {"width": int(size[1]), "height": int(size[2])}
    if "Timesteps" in settings:
        try:
            fields["timesteps"] = [float(part) for part in settings["Timesteps"].split(",")]
            fields.pop("steps", None)
        except ValueError:
            missing.append(f'the timesteps "{settings["Timesteps"][:40]}" are no numbers; they are left out')
    fields["scheduler"], fields["spacing"] = read_sampler(settings.get("Sampler", ""))
    if settings.get("Sampler") and fields["scheduler"] is None:
        missing.append(f"the sampler {settings['Sampler']} is not here; the model's own is taken")
    if settings.get("Schedule type"):
        schedule_type = read_schedule_type(settings["Schedule type"])
        if schedule_type is None:
            missing.append(f"the schedule type {settings['Schedule type']} is not here; the model's own is taken")
        elif schedule_type.spacing is not None:
            fields["spacing"] = schedule_type.spacing
    if "Denoising strength" in settings:
        missing.append("the picture that it started from is not in the file")
    if settings.get("Model"):
        fields["model"] = settings["Model"]
    pairs = (part.partition(":") for part in settings.get("Lora hashes", "").split(","))
    return _found(service, shelf, fields, missing, {name.strip(): digest.strip() for name, _, digest in pairs})


def _found(service: Service, shelf: Shelf, fields: dict[str, Any], missing: list[str], hashes: dict[str, str]) -> Found:
    """With the names of adapters and model that they have here; what is not here is left out and listed."""
    blend = fields.get("blend", {})
    blend = blend if isinstance(blend, dict) else {"items": blend}
    items = []
    for item in blend.get("items", ()):
        name, trouble = shelf.find(item["adapter"], hashes.get(item["adapter"], ""))
        missing += [trouble] if trouble else []
        items += [item | {"adapter": name}] if name else []
    model = fields.get("model")
    known = {name: model_name(service.models.folder(name)) for name in service.models.names}
    fields["model"] = next((name for name, folder in known.items() if model in (name, folder)), None)
    if model and fields["model"] is None:
        missing.append(f"the model {model} is not here; {service.models.names[0]} is taken")
    scheduler, spacing = fields.get("scheduler"), fields.get("spacing")
    if scheduler and spacing and spacing not in SCHEDULERS[scheduler].spacings:
        missing.append(f"the scheduler {scheduler} has no spacing {spacing} here; the model's own is taken")
        fields["spacing"] = None
    return Found(Draw.model_validate(fields | {"blend": blend | {"items": items}}), tuple(dict.fromkeys(missing)))


def _has_upload(service: Service, name: str) -> bool:
    try:
        return service.uploads.path(name).is_file()
    except RequestError:
        return False


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | list | tuple | dict)

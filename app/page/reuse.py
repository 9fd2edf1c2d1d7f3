"""From a picture back to the form: the settings it was drawn with, and those that are missing here."""

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
from lorablend.app.pictures.infotext import parse_infotext, read_settings
from lorablend.app.pictures.png import texts_of
from lorablend.app.pictures.record import Record, model_name
from lorablend.app.pictures.uploads import opened
from lorablend.app.service import Service
from lorablend.engine.pixel_budget import BUDGET, decoding
from lorablend.engine.schedulers import SCHEDULERS
from lorablend.engine.settings import SETTINGS

__all__ = ["ReusedDrawing", "read_picture", "reuse"]

_FILE = re.compile(r"(\d{4}-\d\d-\d\d)/(\d{6})-(\d+)-(\d+)\.\w+")  # as `Drawing` names them: day/time-job-seed


@dataclass(frozen=True)
class ReusedDrawing:
    """A picture's drawing. missing: one line for each part of it that does not exist here."""

    draw: Draw
    missing: tuple[str, ...]


def reuse(service: Service, shelf: Shelf, file: str) -> ReusedDrawing:
    """The drawing of a picture in the gallery; its job tells which pictures it started from.

    Raises RequestError if the picture has no settings in it.
    """
    path = service.gallery.path(file)
    with Image.open(path) as picture, decoding(picture.width * picture.height):
        texts = texts_of(picture, path.name)
    if texts.record is None:
        return read_picture(service, shelf, path)
    return _from_record(service, shelf, texts.record, _request(service, file), path.suffix)


def read_picture(service: Service, shelf: Shelf, path: Path) -> ReusedDrawing:
    """The drawing of a picture file of lorablend, A1111, ComfyUI or a similar program.

    Raises RequestError if the picture has no settings in it.
    """
    with opened(path, BUDGET, path.name) as picture:
        texts, comfy = texts_of(picture, path.name), picture.info.get("prompt")
    if texts.record is not None:
        return _from_record(service, shelf, texts.record, {}, path.suffix)
    if texts.parameters:
        return _from_infotext(service, shelf, texts.parameters)
    if isinstance(comfy, str):
        fields, missing = read_comfy(comfy)
        return _named_here(service, shelf, fields, missing, {})
    raise RequestError(f"{path.name} says nothing about how it was made; give a picture as the program saved it")


def _request(service: Service, file: str) -> dict[str, Any]:
    """The order of the job that drew a picture of the gallery; {} if the job is gone."""
    name = _FILE.fullmatch(file)
    if name is None:
        return {}
    jobs = service.jobs.find(limit=1, before=int(name[3]) + 1)
    if not jobs or jobs[0].number != int(name[3]) or jobs[0].kind != "draw":
        return {}
    same = f"{datetime.fromtimestamp(jobs[0].submitted):%Y-%m-%d/%H%M%S}" == f"{name[1]}/{name[2]}"
    return jobs[0].request if same else {}


def _from_record(service: Service, shelf: Shelf, record: Record, job: dict[str, Any], suffix: str) -> ReusedDrawing:
    request, missing = record.request, list[str]()
    items = [dict(item) for item in request.blend["items"]]
    ordered = job.get("blend", [])
    ordered = ordered.get("items", []) if isinstance(ordered, dict) else ordered
    for index, item in enumerate(items):
        mask = item.get("mask")
        if isinstance(mask, str):  # a picture, of which the record has only the name
            known = ordered[index].get("mask") if index < len(ordered) and isinstance(ordered[index], dict) else None
            if isinstance(known, str) and _has_upload(service, known):
                item["mask"] = known
            else:
                missing.append(f"the mask of {item['adapter']} is not in the file")
                del item["mask"]
    fields: dict[str, Any] = {name: getattr(request, name) for name in SETTINGS if name != "batch"} | {
        "blend": request.blend | {"items": items},
        "steps": None if request.timesteps else request.steps,
        "seed": record.seed,
        "strength": None,
        "model": record.model,
        "format": {".png": "png", ".webp": "webp"}.get(suffix.lower(), "jpeg"),
    }
    pictures = {key: job[key] for key in ("image", "mask") if key in job and _has_upload(service, job[key])}
    if request.strength is not None and "image" in pictures:
        fields |= pictures | {"strength": request.strength}
    elif request.strength is not None:
        missing.append("the picture that it started from is not in the file")
    hashes = {used.name: used.sha256 for used in record.adapters}
    reused = _named_here(service, shelf, fields, missing, hashes)
    pipe = service.models.get(reused.draw.model)
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
    return ReusedDrawing(reused.draw, (*reused.missing, *differing))


def _from_infotext(service: Service, shelf: Shelf, parameters: str) -> ReusedDrawing:
    text = parse_infotext(parameters)
    fields, missing = read_settings(text.settings)
    fields |= {"prompt": text.prompt, "negative_prompt": text.negative_prompt or None}
    tags: list[Any] = []
    try:
        fields["prompt"], tags = parse_prompt(text.prompt)
    except BlendError as error:
        missing.insert(0, str(error))
    items: list[Any] = []
    for entry in tags:
        if isinstance(entry, tuple):
            items.append({"adapter": str(entry[0]), "weight": entry[1]})
        elif "items" in entry:
            fields["blend"] = entry
        else:
            items.append({key: value if _plain(value) else value.to_json() for key, value in entry.items()})
    fields["blend"] = fields.get("blend", {}) | {"items": items}
    if SETTINGS["strength"].infotext in text.settings:
        missing.append("the picture that it started from is not in the file")
    if text.settings.get("Model"):
        fields["model"] = text.settings["Model"]
    pairs = (part.partition(":") for part in text.settings.get("Lora hashes", "").split(","))
    return _named_here(service, shelf, fields, missing, {name.strip(): digest.strip() for name, _, digest in pairs})


def _named_here(
    service: Service, shelf: Shelf, fields: dict[str, Any], missing: list[str], hashes: dict[str, str]
) -> ReusedDrawing:
    """Replace the names of adapters and model by those they have here; list and leave out what does not exist here."""
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
        missing.append(f"the model {model} is not here; {service.models.names[0]} is used")
    scheduler, spacing = fields.get("scheduler"), fields.get("spacing")
    if scheduler and spacing and spacing not in SCHEDULERS[scheduler].spacings:
        missing.append(f"the scheduler {scheduler} has no spacing {spacing} here; the model's own is used")
        fields["spacing"] = None
    return ReusedDrawing(
        Draw.model_validate(fields | {"blend": blend | {"items": items}}), tuple(dict.fromkeys(missing))
    )


def _has_upload(service: Service, name: str) -> bool:
    try:
        return service.uploads.path(name).is_file()
    except RequestError:
        return False


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | list | tuple | dict)

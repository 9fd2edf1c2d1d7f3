"""From a picture back to a drawing: the settings it was drawn with, and those that are missing here."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import RequestError
from lorablend.app.library.shelf import Shelf
from lorablend.app.orders.reuse import ReusedDrawing, order_of
from lorablend.app.pictures.metadata.own import read_record
from lorablend.app.pictures.metadata.programs import read_metadata
from lorablend.app.pictures.png import read_png
from lorablend.app.pictures.record import Record, model_name
from lorablend.app.service import Service

__all__ = ["read_picture", "reuse"]

_FILE = re.compile(r"(\d{4}-\d\d-\d\d)/(\d{6})-(\d+)-(\d+)\.\w+")  # as `Drawing` names them: day/time-job-seed


def reuse(service: Service, shelf: Shelf, file: str) -> ReusedDrawing:
    """The drawing of a picture in the gallery; its job tells which pictures it started from.

    Raises RequestError if the picture has no settings in it.
    """
    path = service.gallery.path(file)
    try:
        record = read_png(path).record
    except RequestError:  # of a newer lorablend: the text beside it is read
        record = None
    if record is None:
        return read_picture(service, shelf, path, path.name)
    return _from_record(service, shelf, record, path.suffix, _request(service, file))


def read_picture(service: Service, shelf: Shelf, source: Path | bytes, name: str) -> ReusedDrawing:
    """The drawing of a picture file of any program. Raises RequestError like `read_metadata`.

    Args:
        service: The service.
        shelf: The adapters.
        source: The file's path, or its contents.
        name: What messages call it.
    """
    found = read_metadata(source, name)
    reused = order_of(found, shelf, _models(service))
    if found.record is None:
        return reused
    return replace(reused, missing=(*reused.missing, *_other_machine(service, reused, found.record)))


def _models(service: Service) -> dict[str, str]:
    return {name: model_name(service.models.folder(name)) for name in service.models.names}


def _from_record(service: Service, shelf: Shelf, record: Record, suffix: str, order: dict[str, Any]) -> ReusedDrawing:
    found = read_record(record, suffix, order, lambda name: _has_upload(service, name))
    reused = order_of(found, shelf, _models(service))
    return replace(reused, missing=(*reused.missing, *_other_machine(service, reused, record)))


def _other_machine(service: Service, reused: ReusedDrawing, record: Record) -> list[str]:
    """How the pipeline here differs from that of the record."""
    pipe = service.models.get(reused.draw.model)
    return [
        f"it was drawn with {name} {was or 'by default'}, here it is {now or 'by default'}"
        for name, was, now in (
            ("the device", record.device, pipe.device),
            ("the runtime", record.runtime, pipe.runtime),
            ("the precision", record.precision, pipe.precision),
            ("max_rank", record.max_rank, pipe.max_rank),
        )
        if was != now
    ]


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


def _has_upload(service: Service, name: str) -> bool:
    try:
        return service.uploads.path(name).is_file()
    except RequestError:
        return False

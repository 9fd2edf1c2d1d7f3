"""The pictures that were drawn: found, shown, marked, deleted and taken back.

A picture's name is that of the gallery's index, and never a path; what is served is PNG, JPEG or WebP.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel

from lorablend.adapters.errors import NotFoundError
from lorablend.app.pictures.gallery import GalleryPicture
from lorablend.app.pictures.png import read_png
from lorablend.app.rest.errors import Refusal
from lorablend.app.rest.shared import MEDIA_TYPES, Served, reply
from lorablend.app.service import Service

__all__ = ["router"]

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": text} for status, text in ((404, "Not there"), (422, "Wrong input"))
}
router = APIRouter(prefix="/api/gallery", tags=["lorablend"], responses=_REFUSALS)


class Mark(BaseModel):
    favourite: bool


@router.get("")
def find(
    service: Served,
    search: Annotated[str, Query(max_length=1000)] = "",
    adapter: Annotated[str | None, Query(max_length=1000)] = None,
    seed: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    favourite: bool | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(max_length=1000)] = None,
) -> Response:
    """The newest first. search: words that are all in the prompt. after: the last picture of the page before."""
    if after is not None:
        service.gallery.get(after)
    found = service.gallery.find(search, adapter=adapter, seed=seed, favourite=favourite, limit=limit, after=after)
    return reply({"pictures": [_form(picture) for picture in found]})


@router.get("/bin")
def in_bin(service: Served) -> Response:
    """What was deleted and can come back."""
    return reply({"files": service.gallery.bin()})


@router.post("/scan")
def scan(service: Served) -> Response:
    """Take over what was added or removed on disk."""
    service.gallery.scan()
    return reply({})


@router.get("/zip")
def archive(
    service: Served, file: Annotated[list[Annotated[str, Query(max_length=1000)]], Query(min_length=1, max_length=200)]
) -> Response:
    """The pictures of these names, each given once or more, in one archive."""
    names = list(dict.fromkeys(file))
    for name in names:
        _picture(service, name)
    headers = {"Content-Disposition": f'attachment; filename="lorablend-{time.strftime("%Y%m%d-%H%M%S")}.zip"'}
    return Response(service.gallery.zip(names), headers=headers, media_type="application/zip")


@router.get("/{file:path}/picture")
def picture(file: str, service: Served) -> Response:
    """The file itself, with its settings in it."""
    _picture(service, file)
    path = service.gallery.path(file)
    headers = {
        "Cache-Control": "private, max-age=3600",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(PurePosixPath(file).name, safe='')}",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    return Response(path.read_bytes(), headers=headers, media_type=MEDIA_TYPES[path.suffix.lower()])


@router.post("/{file:path}/mark")
def mark(file: str, mark: Mark, service: Served) -> Response:
    """Make it a favourite, or none."""
    _picture(service, file)
    return reply(_form(service.gallery.mark(file, favourite=mark.favourite)))


@router.post("/{file:path}/restore")
def restore(file: str, service: Served) -> Response:
    """Take it out of the bin."""
    return reply(_form(service.gallery.restore(file)))


@router.delete("/{file:path}")
@router.post("/{file:path}/delete")
def delete(file: str, service: Served) -> Response:
    """Move it to the bin."""
    _picture(service, file)
    service.gallery.delete(file)
    return reply({})


@router.get("/{file:path}")
def settings(file: str, service: Served) -> Response:
    """What it was made from: the whole record too, null for a picture of another program."""
    found = _picture(service, file)
    record = read_png(service.gallery.path(file)).record
    return reply({**_form(found), "record": None if record is None else json.loads(record.to_json())})


def _form(picture: GalleryPicture) -> dict[str, Any]:
    return {**asdict(picture), "url": f"/api/gallery/{quote(picture.file)}/picture"}


def _picture(service: Service, file: str) -> GalleryPicture:
    """One whose file is there; somebody may have deleted it on the disk since the gallery last looked."""
    found = service.gallery.get(file)
    if not service.gallery.path(file).is_file():
        raise NotFoundError(f"the picture {file[:80]!r} is gone from the disk; POST /api/gallery/scan takes it out")
    return found

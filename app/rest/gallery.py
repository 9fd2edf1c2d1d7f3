"""The pictures that were drawn: found, shown, marked, deleted and restored.

A picture's name is the one in the gallery's index, never a path; files are served as PNG, JPEG or WebP.
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
from lorablend.app.rest.errors import refusals
from lorablend.app.rest.replies import BinList, Done, PictureList, PictureReply, PictureSettings
from lorablend.app.rest.shared import FILE_HEADERS, MEDIA_TYPES, Served, content, reply
from lorablend.app.service import Service

__all__ = ["router"]

router = APIRouter(prefix="/api/gallery", tags=["lorablend"], responses=refusals(400, 404, 422))
Name = Annotated[str, Query(max_length=1000)]


class FavouriteForm(BaseModel):
    """Whether the picture is a favourite."""

    favourite: bool


@router.get("", response_model=PictureList)
def find_pictures(
    service: Served,
    search: Annotated[str, Query(max_length=1000, description="Words that are all in the prompt")] = "",
    adapter: Annotated[str | None, Query(max_length=1000, description="The name of an adapter in the blend")] = None,
    seed: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    favourite: bool | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(max_length=1000, description="The last picture of the page before")] = None,
) -> Response:
    """Find pictures in the gallery, the newest first."""
    if after is not None:
        service.gallery.get(after)
    pictures = service.gallery.find(search, adapter=adapter, seed=seed, favourite=favourite, limit=limit, after=after)
    return reply({"pictures": [_form(picture) for picture in pictures]})


@router.get("/bin", response_model=BinList)
def list_bin(service: Served) -> Response:
    """List the deleted pictures that can be restored."""
    return reply({"files": service.gallery.bin()})


@router.post("/scan", response_model=Done)
def scan(service: Served) -> Response:
    """Bring the gallery's index up to date with pictures that were added or removed on disk."""
    service.gallery.scan()
    return reply({})


@router.get("/zip", response_class=Response, responses=content("application/zip", description="The archive"))
def get_archive(service: Served, file: Annotated[list[Name], Query(min_length=1, max_length=200)]) -> Response:
    """Get the pictures of these names in one archive; a name may be given more than once."""
    names = list(dict.fromkeys(file))
    for name in names:
        _picture(service, name)
    headers = {"Content-Disposition": f'attachment; filename="lorablend-{time.strftime("%Y%m%d-%H%M%S")}.zip"'}
    return Response(service.gallery.zip(names), headers=headers, media_type="application/zip")


@router.get(
    "/{file:path}/picture",
    response_class=Response,
    responses=content("image/png", "image/jpeg", "image/webp", description="The picture"),
)
def get_picture(file: str, service: Served) -> Response:
    """Get the file itself, with its settings in it."""
    _picture(service, file)
    path = service.gallery.path(file)
    name = quote(PurePosixPath(file).name, safe="")
    headers = {**FILE_HEADERS, "Content-Disposition": f"inline; filename*=UTF-8''{name}"}
    return Response(path.read_bytes(), headers=headers, media_type=MEDIA_TYPES[path.suffix.lower()])


@router.post("/{file:path}/mark", response_model=PictureReply)
def mark_picture(file: str, mark: FavouriteForm, service: Served) -> Response:
    """Make a picture a favourite, or an ordinary one again."""
    _picture(service, file)
    return reply(_form(service.gallery.mark(file, favourite=mark.favourite)))


@router.post("/{file:path}/restore", response_model=PictureReply)
def restore_picture(file: str, service: Served) -> Response:
    """Take a picture out of the bin."""
    return reply(_form(service.gallery.restore(file)))


@router.delete("/{file:path}", response_model=Done)
@router.post("/{file:path}/delete", response_model=Done)
def delete_picture(file: str, service: Served) -> Response:
    """Move a picture to the bin."""
    _picture(service, file)
    service.gallery.delete(file)
    return reply({})


@router.get("/{file:path}", response_model=PictureSettings)
def get_settings(file: str, service: Served) -> Response:
    """Get what a picture was made from, with the whole record in the file."""
    picture = _picture(service, file)
    record = read_png(service.gallery.path(file)).record
    return reply({**_form(picture), "record": None if record is None else json.loads(record.to_json())})


def _form(picture: GalleryPicture) -> dict[str, Any]:
    return {**asdict(picture), "url": f"/api/gallery/{quote(picture.file)}/picture"}


def _picture(service: Service, file: str) -> GalleryPicture:
    """A picture whose file exists; it may have been deleted on disk since the last scan."""
    picture = service.gallery.get(file)
    if not service.gallery.path(file).is_file():
        raise NotFoundError(
            f"the picture {file[:80]!r} is gone from the disk; POST /api/gallery/scan takes it out of the gallery"
        )
    return picture

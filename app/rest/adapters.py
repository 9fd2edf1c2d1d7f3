"""The adapters that prompts can name: listed, marked and added."""

from __future__ import annotations

import base64
import tempfile
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile

from lorablend.adapters.errors import NotFoundError, RequestError
from lorablend.app.library.library import Entry, Library
from lorablend.app.rest.errors import ParameterError, refusals
from lorablend.app.rest.jobs import job_reply
from lorablend.app.rest.replies import AdapterList, AdapterReply, JobReply
from lorablend.app.rest.shared import Client, Served, content, form_body, in_thread, reply
from lorablend.app.service import RECEIVING, Service

__all__ = ["adapter_entries", "router"]

_SUFFIX = ".safetensors"
router = APIRouter(prefix="/api/adapters", tags=["lorablend"], responses=refusals(400, 404, 422, 429))


class Download(BaseModel):
    """An adapter to download into the library."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    source: Annotated[str, Field(min_length=1, max_length=10_000)]
    """An http or https address, or hf:owner/repo[/file] on the Hugging Face Hub."""
    name: Annotated[str | None, Field(max_length=1000)] = None
    """What to call it in the library; null for the source's own name."""


class AdapterMark(BaseModel):
    """A user's marks on an adapter; null leaves a mark as it is."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    favourite: bool | None = None
    tags: Annotated[list[str] | None, Field(max_length=1000)] = None
    """These replace all earlier tags."""


@router.get("", response_model=AdapterList)
def list_adapters(
    service: Served,
    search: Annotated[
        str, Query(max_length=1000, description="Words that are all in the name, title, trigger words or tags")
    ] = "",
) -> Response:
    """List the adapters; broken ones have an error."""
    words = search.casefold().split()
    entries = [entry for entry in adapter_entries(service) if all(word in _texts(entry) for word in words)]
    return reply({"adapters": [_form(service, entry) for entry in entries]})


@router.post(
    "", status_code=201, response_model=AdapterReply, openapi_extra=form_body(["file"], file="file", name="text")
)
async def add_adapter(request: Request, service: Served) -> Response:
    """Add a .safetensors file to the library: the field `file` of a multipart form. `name` is what to call it."""
    async with request.form(max_files=2, max_fields=10) as form:
        file, name = form.get("file"), form.get("name")
        if not isinstance(file, UploadFile):
            raise ParameterError("file", "the form has no file in the field file; send one")
        given = PurePosixPath((file.filename or "").replace("\\", "/")).name
        if not given.lower().endswith(_SUFFIX):
            raise ParameterError("file", f"{given[:80]!r} is not a .safetensors file; only those are taken")
        wanted = name if isinstance(name, str) and name else given[: -len(_SUFFIX)]
        entry = await in_thread(_add, service, file.file, wanted)
    return reply(_form(service, entry), 201)


@router.post("/download", status_code=202, response_model=JobReply)
async def download_adapter(order: Download, service: Served, client: Client) -> Response:
    """Queue a download into the library. Location says where to ask for the job."""
    return job_reply(await in_thread(service.adding.submit, order.source, order.name or "", client))


@router.post("/{name:path}/mark", response_model=AdapterReply)
def mark_adapter(name: str, mark: AdapterMark, service: Served) -> Response:
    """Make an adapter a favourite or an ordinary one, and give it tags. They stay with the file if it is renamed."""
    entry, library = _entry(service, name), _library(service)
    library.scan()
    if mark.tags is not None:
        entry = library.set_tags(entry.name, mark.tags)
    if mark.favourite is not None:
        entry = library.set_favourite(entry.name, mark.favourite)
    return reply(_form(service, entry))


@router.get(
    "/{name:path}/preview",
    response_class=Response,
    responses=content("image/png", "image/jpeg", "image/webp", description="The picture"),
)
def get_preview(name: str, service: Served) -> Response:
    """Get the picture that is next to the adapter's file, or in it."""
    address = service.shelf.preview(_entry(service, name))
    kind, _, data = address.removeprefix("data:").partition(";base64,")
    if not data:
        raise NotFoundError(f"the adapter {name[:80]!r} has no preview")
    return Response(base64.b64decode(data), headers={"Cache-Control": "private, max-age=60"}, media_type=kind)


@router.get("/{name:path}", response_model=AdapterReply)
def get_adapter(name: str, service: Served) -> Response:
    """Get one adapter by its name."""
    return reply(_form(service, _entry(service, name)))


def adapter_entries(service: Service) -> list[Entry]:
    """The adapters that are in the folder now."""
    return service.shelf.entries()


def _entry(service: Service, name: str) -> Entry:
    entry = service.shelf.get(name)
    if entry is None:
        raise NotFoundError(f"there is no adapter {name[:80]!r}; /api/adapters lists them all")
    return entry


def _library(service: Service) -> Library:
    """The library, to change something in it; this turns a plain folder into a library."""
    folder = service.models.lora_dir
    if folder is None:
        raise RequestError("adapters cannot be added here; start the server with --lora-dir and a folder of your own")
    return Library(folder)


def _add(service: Service, content: BinaryIO, name: str) -> Entry:
    library = _library(service)
    # Outside the library, so that no part of it is ever found as an adapter.
    with tempfile.TemporaryDirectory(prefix=RECEIVING, dir=service.data) as parts:
        part = Path(parts) / f"part{_SUFFIX}"
        with part.open("wb") as out:
            while chunk := content.read(4 << 20):
                out.write(chunk)
        return library.add(part, name=name)


def _texts(entry: Entry) -> str:
    return "\n".join((entry.name, entry.title, *entry.trigger_words, *entry.tags)).casefold()


def _form(service: Service, entry: Entry) -> dict[str, Any]:
    """An adapter for clients, without paths of this machine."""
    form = {name: value for name, value in asdict(entry).items() if name != "path"}
    return {**form, "error": service.public(entry.error) if entry.error else None}

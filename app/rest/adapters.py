"""The adapters that prompts can name, what people add to them, and how another one comes in."""

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
from lorablend.app.library.shelf import Shelf
from lorablend.app.rest.errors import ParameterError, Refusal
from lorablend.app.rest.jobs import job_form
from lorablend.app.rest.shared import Client, Served, in_thread, reply
from lorablend.app.service import RECEIVING, Service

__all__ = ["adapter_entries", "router"]

_SUFFIX = ".safetensors"
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": text}
    for status, text in (
        (400, "Wrong input"),
        (404, "Not there"),
        (413, "Too large"),
        (422, "Wrong input"),
        (429, "Queue full"),
    )
}
router = APIRouter(prefix="/api/adapters", tags=["lorablend"], responses=_REFUSALS)
_FILE = {"type": "string", "format": "binary"}
_UPLOAD = {
    "schema": {"type": "object", "required": ["file"], "properties": {"file": _FILE, "name": {"type": "string"}}}
}


class Download(BaseModel):
    """source: an http or https address, or hf:owner/repo[/file] on the Hugging Face Hub. name: what to call it,
    None for the source's own.
    """

    model_config = ConfigDict(extra="forbid")

    source: Annotated[str, Field(min_length=1, max_length=10_000)]
    name: Annotated[str | None, Field(max_length=1000)] = None


class AdapterMark(BaseModel):
    """What is None stays as it is; tags replace those that were there."""

    model_config = ConfigDict(extra="forbid")

    favourite: bool | None = None
    tags: Annotated[list[str] | None, Field(max_length=1000)] = None


@router.get("")
def list_adapters(service: Served, search: Annotated[str, Query(max_length=1000)] = "") -> Response:
    """All adapters, broken ones with their error. search: words that are in the name, title, trigger words or tags."""
    words = search.casefold().split()
    entries = [entry for entry in adapter_entries(service) if all(word in _texts(entry) for word in words)]
    return reply({"adapters": [_form(service, entry) for entry in entries]})


@router.post(
    "", status_code=201, openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": _UPLOAD}}}
)
async def add_adapter(request: Request, service: Served) -> Response:
    """Add a .safetensors file, the field `file` of a multipart form; `name` is what to call it."""
    async with request.form(max_files=2, max_fields=10) as form:
        file, name = form.get("file"), form.get("name")
        if not isinstance(file, UploadFile):
            raise ParameterError("file", "the form has no file in the field file; send one")
        given = PurePosixPath((file.filename or "").replace("\\", "/")).name
        if not given.lower().endswith(_SUFFIX):
            raise ParameterError("file", f"{given[:80]!r} is no .safetensors file; only those are taken")
        wanted = name if isinstance(name, str) and name else given[: -len(_SUFFIX)]
        entry = await in_thread(_add, service, file.file, wanted)
    return reply(_form(service, entry), 201)


@router.post("/download", status_code=202)
async def download(asked: Download, service: Served, client: Client) -> Response:
    """Queue a download into the library. Location says where it can be asked for."""
    job = await in_thread(service.adding.submit, asked.source, asked.name or "", client)
    return reply(job_form(job), 202, {"Location": f"/api/jobs/{job.id}"})


@router.post("/{name:path}/mark")
def mark(name: str, mark: AdapterMark, service: Served) -> Response:
    """Make it a favourite, or none, and give it tags. They stay with the file, also where it is renamed."""
    entry, library = _entry(service, name), _library(service)
    library.scan()
    if mark.tags is not None:
        entry = library.set_tags(entry.name, mark.tags)
    if mark.favourite is not None:
        entry = library.set_favourite(entry.name, mark.favourite)
    return reply(_form(service, entry))


@router.get("/{name:path}/preview")
def preview(name: str, service: Served) -> Response:
    """The picture that lies beside the adapter, or in it."""
    address = Shelf(service.models.lora_dir).preview(_entry(service, name))
    kind, _, data = address.removeprefix("data:").partition(";base64,")
    if not data:
        raise NotFoundError(f"the adapter {name[:80]!r} has no preview")
    return Response(base64.b64decode(data), headers={"Cache-Control": "private, max-age=60"}, media_type=kind)


@router.get("/{name:path}")
def get_adapter(name: str, service: Served) -> Response:
    return reply(_form(service, _entry(service, name)))


def adapter_entries(service: Service) -> list[Entry]:
    """As they are in the folder now."""
    return Shelf(service.models.lora_dir).entries()


def _entry(service: Service, name: str) -> Entry:
    entry = Shelf(service.models.lora_dir).get(name)
    if entry is None:
        raise NotFoundError(f"there is no adapter {name[:80]!r}; /api/adapters lists them all")
    return entry


def _library(service: Service) -> Library:
    """To change something in it: a plain folder becomes a library with that."""
    folder = service.models.lora_dir
    if folder is None:
        raise RequestError("adapters cannot be added here; start the server with --lora-dir and a folder of your own")
    return Library(folder)


def _add(service: Service, content: BinaryIO, name: str) -> Entry:
    library = _library(service)
    # Beside the uploads, so that no part of it is ever found as an adapter.
    with tempfile.TemporaryDirectory(prefix=RECEIVING, dir=service.data) as parts:
        part = Path(parts) / f"part{_SUFFIX}"
        with part.open("wb") as out:
            while chunk := content.read(4 << 20):
                out.write(chunk)
        return library.add(part, name=name)


def _texts(entry: Entry) -> str:
    return "\n".join((entry.name, entry.title, *entry.trigger_words, *entry.tags)).casefold()


def _form(service: Service, entry: Entry) -> dict[str, Any]:
    """An entry for clients, who are told no paths."""
    form = {name: value for name, value in asdict(entry).items() if name != "path"}
    return {**form, "error": service.public(entry.error) if entry.error else None}

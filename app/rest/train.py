"""Training: data sets that are sent and looked through, trainings that are checked, begun and followed.

Begun trainings are jobs like any other: watched and stopped at /api/jobs.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile

from lorablend.adapters.errors import NotFoundError, RequestError
from lorablend.app.orders.train import Train
from lorablend.app.rest.errors import ParameterError, Refusal
from lorablend.app.rest.jobs import job_form
from lorablend.app.rest.shared import MEDIA_TYPES, Client, Served, in_thread, reply
from lorablend.app.service import Service
from lorablend.app.work.training import Loss

__all__ = ["router"]

_MOST_FILES = 10_000  # at once
_HEADERS = {"Cache-Control": "private, max-age=3600", "Content-Security-Policy": "default-src 'none'; sandbox"}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": text}
    for status, text in (
        (400, "Wrong input"),
        (404, "Not there"),
        (409, "Waits or runs"),
        (413, "Too large"),
        (422, "Wrong input"),
        (429, "Queue full"),
        (501, "lorablend[train] is not installed"),
    )
}
router = APIRouter(prefix="/api/train", tags=["lorablend"], responses=_REFUSALS)
_UPLOAD = {
    "schema": {
        "type": "object",
        "required": ["name", "files"],
        "properties": {
            "name": {"type": "string"},
            "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
        },
    }
}


class Caption(BaseModel):
    """ "" for none; each line is an alternative."""

    model_config = ConfigDict(extra="forbid")

    caption: Annotated[str, Field(max_length=20_000)]


@router.post("", status_code=202)
async def begin(train: Train, service: Served, client: Client) -> Response:
    """Queue a training; one of the same name and settings that was stopped goes on. Location: where to ask for it."""
    job = await in_thread(service.training.submit, train, client)
    return reply(job_form(job), 202, {"Location": f"/api/jobs/{job.id}"})


@router.post("/check")
async def check(train: Train, service: Served) -> Response:
    """What would be trained, in lines for people, or what is wrong; nothing is queued."""
    lines = await in_thread(service.training.check, train)
    return reply({"lines": [service.public(line) for line in lines]})


@router.get("/runs")
def list_runs(service: Served) -> Response:
    """All trainings that wait or have begun, by their adapters' names: the state of the newest job of each, the steps
    that are done, and the step it would go on after, null where there is nothing to go on from.
    """
    return reply({"runs": [_run(service, name, service.training.losses(name)) for name in service.training.names()]})


@router.get("/runs/{name}")
def follow(name: str, service: Served) -> Response:
    """As in the list, with the losses of the training and its sheets of samples."""
    _known(service, name)
    losses = service.training.losses(name)
    form = {
        **_run(service, name, losses),
        "losses": [asdict(loss) for loss in losses],
        "samples": [
            {"step": step, "url": f"/api/train/runs/{quote(name)}/samples/{path.name}"}
            for step, path in service.training.samples(name)
        ],
    }
    return reply(form)


@router.delete("/runs/{name}")
def forget(name: str, service: Served) -> Response:
    """Delete a training's checkpoints, samples and log, for good; the adapter that came of it stays in the library."""
    _known(service, name)
    try:
        service.training.remove(name)
    except RequestError as error:
        raise ParameterError("name", str(error), 409) from error
    return reply({})


@router.get("/runs/{name}/samples/{file}")
def sample(name: str, file: str, service: Served) -> Response:
    """One sheet: left without the adapter, right with it."""
    _known(service, name)
    for _, path in service.training.samples(name):
        if path.name == file:
            return Response(path.read_bytes(), headers=_HEADERS, media_type="image/png")
    raise NotFoundError(f"the training {name[:80]!r} has no samples {file[:80]!r}")


@router.get("/sets")
def list_sets(service: Served) -> Response:
    return reply({"sets": [asdict(service.sets.facts(name)) for name in service.sets.names()]})


@router.post(
    "/sets",
    status_code=201,
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": _UPLOAD}}},
)
async def send(request: Request, service: Served) -> Response:
    """Send pictures to the data set `name`, made if it is not there: `files`, or one archive. All of it, or nothing."""
    async with request.form(max_files=_MOST_FILES, max_fields=10) as form:
        name = form.get("name")
        files = [file for file in form.getlist("files") if isinstance(file, UploadFile)]
        if not isinstance(name, str):
            raise ParameterError("name", "the form has no field name; give the data set one")
        if not files:
            raise ParameterError("files", "the form has no file in the field files; send some")
        named = [(file.filename or "", file.file) for file in files]
        added = await in_thread(service.sets.add, name, named)
    facts = await in_thread(service.sets.facts, name)
    return reply({**asdict(facts), "added": added.files, "notes": added.notes}, 201)


@router.get("/sets/{name}")
def get_set(name: str, service: Served) -> Response:
    """The pictures of a data set with their captions, and what was dropped, the last one first."""
    facts = _facts(service, name)
    pictures = [{**asdict(one), "url": _url(name, one.file)} for one in service.sets.pictures(name)]
    return reply({**facts, "pictures": pictures, "dropped": service.sets.dropped(name)})


@router.delete("/sets/{name}")
def remove(name: str, service: Served) -> Response:
    """Delete a data set with its bin, for good."""
    service.training.remove_set(name)
    return reply({})


@router.get("/sets/{name}/mosaic")
def mosaic(name: str, service: Served, sheet: Annotated[int, Query(ge=0, lt=100_000)] = 0) -> Response:
    """All pictures with their captions, small, as a PNG; large data sets have several sheets."""
    _facts(service, name)
    return Response(service.sets.mosaic(name, sheet), headers={"Cache-Control": "no-store"}, media_type="image/png")


@router.get("/sets/{name}/pictures/{file}")
def picture(name: str, file: str, service: Served) -> Response:
    """The picture as it was sent."""
    path = service.sets.path(name, file)
    return Response(path.read_bytes(), headers=_HEADERS, media_type=MEDIA_TYPES[path.suffix])


@router.put("/sets/{name}/pictures/{file}/caption")
def caption(name: str, file: str, caption: Caption, service: Served) -> Response:
    service.sets.set_caption(name, file, caption.caption)
    (now,) = [one for one in service.sets.pictures(name) if one.file == file]
    return reply(asdict(now))


@router.delete("/sets/{name}/pictures/{file}")
def drop(name: str, file: str, service: Served) -> Response:
    """Move it to the set's bin."""
    service.sets.drop(name, file)
    return reply(_facts(service, name))


@router.post("/sets/{name}/pictures/{file}/restore")
def restore(name: str, file: str, service: Served) -> Response:
    """Take it out of the bin."""
    service.sets.restore(name, file)
    return reply(_facts(service, name))


def _run(service: Service, name: str, losses: list[Loss]) -> dict[str, Any]:
    jobs = (job for job in service.jobs.find(kind="train", limit=sys.maxsize) if job.request["name"] == name)
    newest = next(jobs, None)
    return {
        "name": name,
        "state": newest and newest.state,
        "steps": losses[-1].step if losses else 0,
        "resumable": service.training.resumable(name),
    }


def _known(service: Service, name: str) -> None:
    if name not in service.training.names():
        raise NotFoundError(f"there is no training {name[:80]!r}")


def _facts(service: Service, name: str) -> dict[str, Any]:
    return asdict(service.sets.facts(name))


def _url(name: str, file: str) -> str:
    return f"/api/train/sets/{quote(name)}/pictures/{quote(file)}"

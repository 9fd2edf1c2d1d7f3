"""Training: data sets are sent and reviewed, trainings are checked, begun and followed.

A training is a job like any other: it is watched and stopped at /api/jobs.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile

from lorablend.adapters.errors import NotFoundError, RequestError
from lorablend.app.orders.train import Train
from lorablend.app.rest.errors import ParameterError, refusals
from lorablend.app.rest.jobs import job_reply
from lorablend.app.rest.replies import (
    AddedReply,
    Captioned,
    Checked,
    Done,
    JobReply,
    RunDetails,
    RunList,
    SetDetails,
    SetList,
    SetReply,
)
from lorablend.app.rest.shared import (
    FILE_HEADERS,
    MEDIA_TYPES,
    Client,
    Served,
    content,
    form_body,
    in_thread,
    reply,
)
from lorablend.app.service import Service
from lorablend.app.work.training import Loss

__all__ = ["router"]

_MOST_FILES = 10_000  # in one request
router = APIRouter(prefix="/api/train", tags=["lorablend"], responses=refusals(400, 404, 409, 422, 429, 501))


class Caption(BaseModel):
    """The captions of a picture, each line an alternative; empty text removes them."""

    model_config = ConfigDict(extra="forbid")

    caption: Annotated[str, Field(max_length=20_000)]


@router.post("", status_code=202, response_model=JobReply)
async def begin_training(train: Train, service: Served, client: Client) -> Response:
    """Queue a training; a stopped one of the same name and settings goes on. Location says where to ask for the job."""
    return job_reply(await in_thread(service.training.submit, train, client))


@router.post("/check", response_model=Checked)
async def check_training(train: Train, service: Served) -> Response:
    """Check a training without queueing it: lines for people that say what would be done, or an error."""
    lines = await in_thread(service.training.check, train)
    return reply({"lines": [service.public(line) for line in lines]})


@router.get("/runs", response_model=RunList)
def list_runs(service: Served) -> Response:
    """List the trainings that wait or have begun, by their adapters' names."""
    return reply({"runs": [_run(service, name, service.training.losses(name)) for name in service.training.names()]})


@router.get("/runs/{name}", response_model=RunDetails)
def get_run(name: str, service: Served) -> Response:
    """Get a training with its losses and its sheets of samples."""
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


@router.delete("/runs/{name}", response_model=Done)
def delete_run(name: str, service: Served) -> Response:
    """Delete a training's checkpoints, samples and log, for good; its adapter stays in the library."""
    _known(service, name)
    try:
        service.training.remove(name)
    except RequestError as error:
        raise ParameterError("name", error.message, 409) from error
    return reply({})


@router.get("/runs/{name}/samples/{file}", response_class=Response, responses=content("image/png"))
def get_samples(name: str, file: str, service: Served) -> Response:
    """Get a sheet of samples: on the left without the adapter, on the right with it."""
    _known(service, name)
    for _, path in service.training.samples(name):
        if path.name == file:
            return Response(path.read_bytes(), headers=FILE_HEADERS, media_type="image/png")
    raise NotFoundError(f"the training {name[:80]!r} has no samples {file[:80]!r}")


@router.get("/sets", response_model=SetList)
def list_sets(service: Served) -> Response:
    """List the data sets."""
    return reply({"sets": [asdict(service.sets.facts(name)) for name in service.sets.names()]})


@router.post(
    "/sets",
    status_code=201,
    response_model=AddedReply,
    openapi_extra=form_body(["name", "files"], name="text", files="files"),
)
async def send_pictures(request: Request, service: Served) -> Response:
    """Add pictures, or one archive of them, to the data set `name`, which is made if needed: all of them, or none."""
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


@router.get("/sets/{name}", response_model=SetDetails)
def get_set(name: str, service: Served) -> Response:
    """Get the pictures of a data set with their captions, and the names of the dropped ones."""
    facts = _facts(service, name)
    pictures = [{**asdict(picture), "url": _url(name, picture.file)} for picture in service.sets.pictures(name)]
    return reply({**facts, "pictures": pictures, "dropped": service.sets.dropped(name)})


@router.delete("/sets/{name}", response_model=Done)
def delete_set(name: str, service: Served) -> Response:
    """Delete a data set with its bin, for good."""
    service.training.remove_set(name)
    return reply({})


@router.get("/sets/{name}/mosaic", response_class=Response, responses=content("image/png"))
def get_mosaic(name: str, service: Served, sheet: Annotated[int, Query(ge=0, lt=100_000)] = 0) -> Response:
    """Get all pictures of a data set with their captions, small, as a PNG; large data sets have several sheets."""
    _facts(service, name)
    return Response(service.sets.mosaic(name, sheet), headers={"Cache-Control": "no-store"}, media_type="image/png")


@router.get(
    "/sets/{name}/pictures/{file}",
    response_class=Response,
    responses=content("image/png", "image/jpeg", "image/webp", description="The picture"),
)
def get_set_picture(name: str, file: str, service: Served) -> Response:
    """Get a picture of a data set as it was sent."""
    path = service.sets.path(name, file)
    # In parts: whoever sent it may have put anything behind the picture's end.
    return FileResponse(path, headers=FILE_HEADERS, media_type=MEDIA_TYPES[path.suffix])


@router.put("/sets/{name}/pictures/{file}/caption", response_model=Captioned)
def set_caption(name: str, file: str, caption: Caption, service: Served) -> Response:
    """Set the captions of a picture."""
    service.sets.set_caption(name, file, caption.caption)
    (now,) = [picture for picture in service.sets.pictures(name) if picture.file == file]
    return reply(asdict(now))


@router.delete("/sets/{name}/pictures/{file}", response_model=SetReply)
def drop_picture(name: str, file: str, service: Served) -> Response:
    """Move a picture to the bin of its data set."""
    service.sets.drop(name, file)
    return reply(_facts(service, name))


@router.post("/sets/{name}/pictures/{file}/restore", response_model=SetReply)
def restore_set_picture(name: str, file: str, service: Served) -> Response:
    """Take a picture out of the bin of its data set."""
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

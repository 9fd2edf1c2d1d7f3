"""Our own interface: jobs that are queued, watched and cancelled, and pictures to start from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.datastructures import UploadFile

from lorablend.app.jobs.jobs import ENDED, Job
from lorablend.app.orders.draw import Draw
from lorablend.app.rest import shared
from lorablend.app.rest.errors import ParameterError, Refusal
from lorablend.app.rest.shared import (
    Client,
    Served,
    User,
    changes,
    in_thread,
    keep_upload,
    message,
    reply,
    submit,
    to_base64,
)
from lorablend.app.service import Service

__all__ = ["job_form", "router"]

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": text}
    for status, text in (
        (400, "Wrong input"),
        (403, "Another's job"),
        (404, "Not there"),
        (422, "Wrong input"),
        (429, "Queue full"),
    )
}
router = APIRouter(prefix="/api", tags=["lorablend"], responses=_REFUSALS)
State = Literal["queued", "running", "done", "failed", "cancelled"]


@router.post("/jobs", status_code=202)
async def submit_job(draw: Draw, service: Served, client: Client) -> Response:
    """Queue a drawing. Location says where it can be asked for."""
    job = await submit(service, draw, client)
    return reply(job_form(job), 202, {"Location": f"/api/jobs/{job.id}"})


@router.get("/jobs")
def list_jobs(
    service: Served,
    state: State | None = None,
    kind: Annotated[str | None, Query(max_length=200)] = None,
    client: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int, Query(ge=0, lt=2**63)] = 0,
) -> Response:
    """The newest first. kind: draw, grid, train and so on. before: only jobs of smaller numbers, 0 for all."""
    jobs = service.jobs.find(state=state, kind=kind, client=client, limit=limit, before=before)
    return reply({"jobs": [job_form(job) for job in jobs]})


@router.get("/jobs/{job}")
def get_job(job: str, service: Served) -> Response:
    return reply(job_form(service.jobs.get(job)))


@router.get("/jobs/{job}/events")
async def job_events(job: str, request: Request, service: Served) -> Response:
    """Server-sent events: the job now and after every change, with a preview; the last one is the job that ended.

    An event's id is the job's state; who comes back with the last one's as Last-Event-ID gets 204, and need not again.
    """
    service.jobs.get(job)
    if request.headers.get("last-event-id") in ENDED:
        return Response(status_code=204)  # a browser's EventSource comes back after every end, until it is told so
    events = _events(request, service, job)
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.delete("/jobs/{job}")
@router.post("/jobs/{job}/cancel")
def cancel_job(job: str, service: Served, user: User) -> Response:
    """A queued job ends at once, a running one after its present step; of one that has ended nothing changes.

    Users of a file stop their own jobs only.
    """
    return reply(job_form(service.jobs.cancel(job, user)))


@router.post(
    "/uploads",
    status_code=201,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                name: {"schema": {"type": "string", "format": "binary"}} for name in ("image/png", "image/jpeg")
            },
        }
    },
)
async def upload(request: Request, service: Served) -> Response:
    """Keep a picture, to start from or as a mask: the body itself, or the field `file` of a multipart form."""
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=2, max_fields=10) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise ParameterError("file", "the form has no file in the field file; send one")
            content = await file.read()
    else:
        content = await request.body()
    name = await keep_upload(service, content)
    width, height = (await in_thread(service.uploads.open, name)).size
    return reply({"name": name, "width": width, "height": height}, 201)


def job_form(job: Job, *, preview: bool = False) -> dict[str, Any]:
    """A job for clients. preview: with the picture so far, as a data URL."""
    names = ("number", "id", "kind", "client", "state", "request", "submitted", "started", "ended", "reason", "result")
    form = {name: getattr(job, name) for name in names}
    if job.result and job.kind in ("draw", "grid"):
        drawn = [{**one, "url": f"/api/gallery/{one['file']}/picture"} for one in job.result["pictures"]]
        form["result"] = {**job.result, "pictures": drawn}
    if job.result and job.kind == "grid":
        form["result"]["sheet_url"] = f"/api/sheets/{job.result['sheet']}"
    progress = job.progress
    form["progress"] = None
    if progress:
        form["progress"] = {"step": progress.step, "steps": progress.steps, "eta": progress.eta, "text": progress.text}
        if preview and progress.preview:
            kind = "png" if progress.preview.startswith(b"\x89PNG") else "jpeg"
            form["progress"]["preview"] = f"data:image/{kind};base64,{to_base64(progress.preview)}"
    return form


async def _events(request: Request, service: Service, job: str) -> AsyncIterator[str]:
    last: Job | None = None
    now = asyncio.get_running_loop().time
    said = now()
    async for seen in changes(request, service, job):
        if seen != last or seen.state in ENDED:
            yield f"id: {seen.state}\n{message('job', job_form(seen, preview=True))}"
            last, said = seen, now()
        elif now() - said > shared.KEEP_ALIVE:
            yield shared.STILL_HERE
            said = now()

"""Our own interface: jobs that are queued, watched and cancelled, and pictures to start from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from fastapi.sse import EventSourceResponse

from lorablend.app.jobs.jobs import ENDED, Job
from lorablend.app.orders.draw import Draw
from lorablend.app.rest import shared
from lorablend.app.rest.errors import refusals
from lorablend.app.rest.pictures import PICTURE_BODY, sent_file
from lorablend.app.rest.replies import JobList, JobReply, State, UploadReply
from lorablend.app.rest.shared import (
    Client,
    Served,
    User,
    changes,
    content,
    event,
    in_thread,
    keep_upload,
    reply,
    submit,
    to_base64,
)
from lorablend.app.service import Service

__all__ = ["job_form", "job_reply", "router"]

router = APIRouter(prefix="/api", tags=["lorablend"], responses=refusals(400, 404, 422, 429))


@router.post("/jobs", status_code=202, response_model=JobReply)
async def submit_job(draw: Draw, service: Served, client: Client) -> Response:
    """Queue a drawing. The header Location says where to ask for the job."""
    return job_reply(await submit(service, draw, client))


@router.get("/jobs", response_model=JobList)
def list_jobs(
    service: Served,
    state: State | None = None,
    kind: Annotated[
        str | None, Query(max_length=200, description="draw, grid, train, convert, compress, bake or add")
    ] = None,
    client: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int, Query(ge=0, lt=2**63, description="Only jobs with smaller numbers; 0 for all")] = 0,
) -> Response:
    """List jobs, the newest first."""
    jobs = service.jobs.find(state=state, kind=kind, client=client, limit=limit, before=before)
    return reply({"jobs": [job_form(job) for job in jobs]})


@router.get("/jobs/{job}", response_model=JobReply)
def get_job(job: str, service: Served) -> Response:
    """Get a job by its id."""
    return reply(job_form(service.jobs.get(job)))


@router.get(
    "/jobs/{job}/events",
    response_class=Response,
    responses={
        **content("text/event-stream", description="Events called `job`; the data of each is a job in JSON"),
        204: {"description": "The job had ended in the last event that the client received"},
    },
)
async def job_events(job: str, request: Request, service: Served) -> Response:
    """Follow a job by server-sent events: the job now and after every change, with a preview while it is drawn.

    The last event is the job that has ended. An event's id is the job's state; a client that comes back with that of
    the last event as Last-Event-ID gets status 204, which tells a browser to stop.
    """
    service.jobs.get(job)
    if request.headers.get("last-event-id") in ENDED:
        return Response(status_code=204)  # a browser's EventSource connects again after every end, until it gets this
    return EventSourceResponse(_events(request, service, job), headers={"Cache-Control": "no-store"})


@router.delete("/jobs/{job}", response_model=JobReply)
@router.post("/jobs/{job}/cancel", response_model=JobReply)
def cancel_job(job: str, service: Served, user: User) -> Response:
    """Cancel a job: a waiting one ends at once, a running one after its present step.

    A job that has ended stays as it is. Where users log in, each can cancel only their own jobs.
    """
    return reply(job_form(service.jobs.cancel(job, user)))


@router.post(
    "/uploads",
    status_code=201,
    response_model=UploadReply,
    openapi_extra=PICTURE_BODY,
)
async def upload(request: Request, service: Served) -> Response:
    """Upload a picture to start from, or a mask: as the body itself, or as the field `file` of a multipart form."""
    name = await keep_upload(service, (await sent_file(request))[0])
    width, height = (await in_thread(service.uploads.open, name)).size
    return reply({"name": name, "width": width, "height": height}, 201)


def job_reply(job: Job) -> Response:
    """The reply to a request that has queued a job."""
    return reply(job_form(job), 202, {"Location": f"/api/jobs/{job.id}"})


def job_form(job: Job, *, preview: bool = False) -> dict[str, Any]:
    """A job for clients. preview: include the picture so far, as a data URL."""
    names = ("number", "id", "kind", "client", "state", "request", "submitted", "started", "ended", "reason", "result")
    form = {name: getattr(job, name) for name in names}
    if job.result and job.kind in ("draw", "grid"):
        drawn = [{**picture, "url": f"/api/gallery/{picture['file']}/picture"} for picture in job.result["pictures"]]
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


async def _events(request: Request, service: Service, job: str) -> AsyncIterator[bytes]:
    last: Job | None = None
    clock = asyncio.get_running_loop().time
    sent = clock()
    async for now in changes(request, service, job):
        if now != last or now.state in ENDED:
            yield event("job", job_form(now, preview=True), now.state)
            last, sent = now, clock()
        elif clock() - sent > shared.KEEP_ALIVE:
            yield shared.STILL_HERE
            sent = clock()

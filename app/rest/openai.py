"""OpenAI's image API: pictures from a prompt, edits of a picture, and the list of models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.sse import EventSourceResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from lorablend.adapters.errors import RequestError
from lorablend.app.jobs.jobs import Job
from lorablend.app.orders.draw import Draw
from lorablend.app.rest import shared
from lorablend.app.rest.errors import ModelNotFoundError, OpenAIRefusal, ParameterError, describe, refusals
from lorablend.app.rest.openai_forms import ImageForm, edit_schema, fields_of, mask_of
from lorablend.app.rest.openai_replies import ImagesReply, ModelCard, ModelCards
from lorablend.app.rest.shared import (
    Client,
    JobFailedError,
    Served,
    changes,
    content,
    event,
    finished,
    in_thread,
    keep_upload,
    pictures,
    reply,
    submit,
    to_base64,
)
from lorablend.app.service import Service

__all__ = ["router"]

_REFUSALS = refusals(400, 401, 403, 404, 409, 413, 421, 422, 429, 500, 507, model=OpenAIRefusal)
router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=_REFUSALS)
_STREAM = content("text/event-stream", description="The pictures; with `stream`, as events")
_USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}


@router.get("/models", response_model=ModelCards)
def list_models(service: Served) -> Response:
    """List the base models."""
    return reply({"object": "list", "data": [_model(service, name) for name in service.models.names]})


@router.get("/models/{name}", response_model=ModelCard)
def get_model(name: str, service: Served) -> Response:
    """Get one base model."""
    if name not in service.models.names:
        text = f"there is no model {name[:80]!r}; there are {', '.join(service.models.names)}"
        raise ModelNotFoundError(text)
    return reply(_model(service, name))


@router.post("/images/generations", response_model=ImagesReply, responses=_STREAM)
async def generate_images(form: ImageForm, request: Request, service: Served, client: Client) -> Response:
    """Draw pictures from a prompt, and wait for them; with `stream`, by server-sent events."""
    draw = form.draw(service.models)
    return await _drawn(form, draw, request, service, client, "image_generation")


@router.post("/images/edits", response_model=ImagesReply, responses=_STREAM, openapi_extra=edit_schema())
async def edit_image(request: Request, service: Served, client: Client) -> Response:
    """Draw a picture again where a mask is transparent, or white if the mask has no transparent pixels."""
    async with request.form(max_files=20, max_fields=100) as sent:
        files = [value for key, value in sent.multi_items() if key in ("image", "image[]")]
        image = await _file(service, "image", files)
        masks = [value for value in sent.getlist("mask") if value != ""]
        mask = await _file(service, "mask", masks) if masks else None
        texts = [(key, value) for key, value in sent.multi_items() if isinstance(value, str)]
    try:
        form = ImageForm.model_validate(fields_of(texts))
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
    mask = await in_thread(mask_of, service.uploads, mask) if mask else await in_thread(_own_mask, service, image)
    return await _drawn(form, form.draw(service.models, image, mask), request, service, client, "image_edit")


def _own_mask(service: Service, image: str) -> str | None:
    return mask_of(service.uploads, image, of_image=True)


async def _file(service: Service, name: str, sent: list[Any]) -> str:
    """Keep the only file of a field as an upload, and return its name."""
    if len(sent) != 1:
        raise ParameterError(name, f"{name} was sent {len(sent)} times; send one picture")
    if not isinstance(sent[0], UploadFile):
        raise ParameterError(name, f"{name} is not a file; send it as a file of a multipart form")
    try:
        return await keep_upload(service, await sent[0].read())
    except RequestError as error:
        raise ParameterError(name, f"{name}: {error}") from error


async def _drawn(form: ImageForm, draw: Draw, request: Request, service: Service, client: str, kind: str) -> Response:
    job = await submit(service, draw, client)
    if form.stream:
        events = _events(form, job, request, service, kind)
        return EventSourceResponse(events, headers={"Cache-Control": "no-store"})
    job = await finished(request, service, job)
    facts = await in_thread(_facts, form, job, service)
    return reply({"created": facts.pop("created_at"), "data": await _data(form, job, request, service), **facts})


async def _data(form: ImageForm, job: Job, request: Request, service: Service) -> list[dict[str, Any]]:
    drawn = job.result["pictures"]
    if form.response_format == "url":
        places = [{"url": f"{request.base_url}api/gallery/{picture['file']}/picture"} for picture in drawn]
    else:
        places = [{"b64_json": to_base64(file)} for file in await pictures(service, job)]
    return [{**place, "seed": picture["seed"]} for place, picture in zip(places, drawn, strict=True)]


def _facts(form: ImageForm, job: Job, service: Service) -> dict[str, Any]:
    """The part of a reply that is about all its pictures."""
    facts: dict[str, Any] = {
        "created_at": int(time.time()),
        "background": "opaque",
        "output_format": form.output_format or "png",
        "quality": form.quality or "auto",
        "size": form.size or "auto",
    }
    if job.result:
        picture = service.gallery.get(job.result["pictures"][0]["file"])
        facts |= {"size": f"{picture.width}x{picture.height}", "usage": _USAGE}
    return facts


async def _events(form: ImageForm, job: Job, request: Request, service: Service, kind: str) -> AsyncIterator[bytes]:
    """Yield previews at even distances, then every picture. If the client disconnects, the job is cancelled."""
    wanted, sent = form.partial_images or 0, 0
    clock = asyncio.get_running_loop().time
    last_sent = clock()
    try:
        async for now in changes(request, service, job.id):
            job, progress = now, now.progress
            if clock() - last_sent > shared.KEEP_ALIVE:
                yield shared.STILL_HERE
                last_sent = clock()
            if not progress or not progress.preview or sent == wanted:
                continue
            if progress.step * (wanted + 1) >= progress.steps * (sent + 1):
                partial = {"b64_json": to_base64(progress.preview), "partial_image_index": sent}
                name = f"{kind}.partial_image"
                yield event(name, {"type": name, **partial, **_facts(form, job, service)})
                sent, last_sent = sent + 1, clock()
        if job.state != "done":
            error = describe(500 if job.state == "failed" else 409, str(JobFailedError(job)))
            yield event("error", {"type": "error", **error})
            return
        name, facts = f"{kind}.completed", await in_thread(_facts, form, job, service)
        for file, picture in zip(await pictures(service, job), job.result["pictures"], strict=True):
            own = {"b64_json": to_base64(file), "seed": picture["seed"]}
            yield event(name, {"type": name, **own, **facts})
    finally:
        service.jobs.cancel(job.id)  # changes nothing if it has ended


def _model(service: Service, name: str) -> dict[str, Any]:
    created = int(service.models.folder(name).stat().st_mtime)
    return {"id": name, "object": "model", "created": created, "owned_by": "lorablend"}

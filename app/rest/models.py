"""The models: those that are there, and how more are made and removed. Their jobs are watched at /api/jobs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from lorablend.adapters.errors import NotFoundError
from lorablend.app.orders.build import Bake, Compress, Convert
from lorablend.app.rest.errors import Refusal
from lorablend.app.rest.jobs import job_form
from lorablend.app.rest.shared import Client, Served, in_thread, reply
from lorablend.app.service import Service

__all__ = ["router"]

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": text}
    for status, text in (
        (400, "Wrong input"),
        (404, "Not there"),
        (422, "Wrong input"),
        (429, "Queue full"),
        (501, "Not installed"),
        (507, "No room"),
    )
}
router = APIRouter(prefix="/api/models", tags=["lorablend"], responses=_REFUSALS)


@router.get("")
def list_models(service: Served) -> Response:
    """All models, the one that is drawn with by default first; sizes in bytes. sources: what lies ready to convert."""
    forms = [_form(service, form) for form in service.building.models()]
    return reply({"models": forms, "sources": service.building.sources.names(), "free": service.building.free()})


@router.post("/convert", status_code=202)
async def convert(asked: Convert, service: Served, client: Client) -> Response:
    """Queue a conversion. Location says where it can be asked for."""
    job = await in_thread(service.building.convert, asked, client)
    return reply(job_form(job), 202, {"Location": f"/api/jobs/{job.id}"})


@router.post("/compress", status_code=202)
async def compress(asked: Compress, service: Served, client: Client) -> Response:
    """Queue a copy of a model with its weights in 8 bits. Location says where it can be asked for."""
    job = await in_thread(service.building.compress, asked, client)
    return reply(job_form(job), 202, {"Location": f"/api/jobs/{job.id}"})


@router.post("/bake", status_code=202)
async def bake(asked: Bake, service: Served, client: Client) -> Response:
    """Queue a copy of a model with a blend in its weights. Location says where it can be asked for."""
    job = await in_thread(service.building.bake, asked, client)
    return reply(job_form(job), 202, {"Location": f"/api/jobs/{job.id}"})


@router.delete("/{name:path}")
def remove(name: str, service: Served) -> Response:
    """Delete a model that was made here, for good."""
    if not any(form["name"] == name for form in service.building.models()):
        raise NotFoundError(f"there is no model {name[:80]!r}; /api/models lists them all")
    service.building.remove(name)
    return reply({})


def _form(service: Service, form: dict[str, Any]) -> dict[str, Any]:
    """What clients are told, without paths."""
    return {**form, "error": service.public(form["error"]) or None}

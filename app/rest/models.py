"""The base models: listed, made and removed. The jobs that make them are watched at /api/jobs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from lorablend.adapters.errors import NotFoundError
from lorablend.app.orders.build import Bake, Compress, Convert
from lorablend.app.rest.errors import refusals
from lorablend.app.rest.jobs import job_reply
from lorablend.app.rest.replies import Done, JobReply, ModelList
from lorablend.app.rest.shared import Client, Served, in_thread, reply
from lorablend.app.service import Service

__all__ = ["router"]

router = APIRouter(prefix="/api/models", tags=["lorablend"], responses=refusals(400, 404, 422, 429, 501))


@router.get("", response_model=ModelList)
def list_models(service: Served) -> Response:
    """List the base models, the default first, and what is ready to be converted."""
    forms = [_form(service, form) for form in service.building.models()]
    return reply({"models": forms, "sources": service.building.sources.names(), "free": service.building.free()})


@router.post("/convert", status_code=202, response_model=JobReply)
async def convert_model(order: Convert, service: Served, client: Client) -> Response:
    """Queue a conversion to OpenVINO. Location says where to ask for the job."""
    return job_reply(await in_thread(service.building.convert, order, client))


@router.post("/compress", status_code=202, response_model=JobReply)
async def compress_model(order: Compress, service: Served, client: Client) -> Response:
    """Queue a copy of a model with its weights in 8 bits. Location says where to ask for the job."""
    return job_reply(await in_thread(service.building.compress, order, client))


@router.post("/bake", status_code=202, response_model=JobReply)
async def bake_model(order: Bake, service: Served, client: Client) -> Response:
    """Queue a copy of a model with a blend in its weights. Location says where to ask for the job."""
    return job_reply(await in_thread(service.building.bake, order, client))


@router.delete("/{name:path}", response_model=Done)
def remove_model(name: str, service: Served) -> Response:
    """Delete a model that was made here, for good."""
    if not any(form["name"] == name for form in service.building.models()):
        raise NotFoundError(f"there is no model {name[:80]!r}; /api/models lists them all")
    service.building.remove(name)
    return reply({})


def _form(service: Service, form: dict[str, Any]) -> dict[str, Any]:
    """A model for clients, without paths of this machine."""
    return {**form, "error": service.public(form["error"]) or None}

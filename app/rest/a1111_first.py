"""What A1111's clients ask for first, outside its API, to find out whether a server is there."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter
from fastapi.responses import Response

from lorablend.app.rest.a1111_replies import Nothing, QueueStatus, SystemInfo
from lorablend.app.rest.shared import Served, reply

__all__ = ["router"]

router = APIRouter(tags=["A1111"])


@router.head("/queue/status", include_in_schema=False)  # some ask for the head alone, whether the server is there
@router.get("/queue/status", response_model=QueueStatus)
def get_queue_status(service: Served) -> Response:
    """Get the length of the queue, as Gradio 3 had it; cyanic-sd-krita asks for it before everything else."""
    return reply({"msg": "estimation", "queue_size": service.jobs.count("queued")})


@router.head("/internal/ping", include_in_schema=False)
@router.get("/internal/ping", response_model=Nothing)
def ping() -> Response:
    """Say that the server is there."""
    return reply({})


@router.get("/internal/sysinfo", response_model=SystemInfo)
def get_system_info() -> Response:
    """Get the name and version of the server."""
    return reply({"Version": f"lorablend {version('lorablend')}"})

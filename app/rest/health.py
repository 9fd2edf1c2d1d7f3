"""The state of the server: for people and load balancers, and for Prometheus."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from lorablend.app.rest.replies import Health, HealthState
from lorablend.app.rest.shared import Served, content, reply

__all__ = ["router"]

router = APIRouter(tags=["lorablend"])


@router.head("/healthz", include_in_schema=False)  # as containers and monitors ask
@router.get(
    "/healthz",
    response_model=Health | HealthState,
    responses={503: {"model": Health | HealthState, "description": "Jobs are not done: the server's log says why"}},
)
def get_health(request: Request, service: Served) -> Response:
    """Get the state of the server, with status 200 while jobs are done and 503 otherwise.

    Without a login, it is the state alone.
    """
    alive, trouble = service.alive, service.trouble()
    state = ("degraded" if trouble else "ok") if alive else "down"
    status = 200 if state == "ok" else 503
    if request.scope.get("lorablend.probe"):
        return reply({"status": state}, status)
    form = {
        "status": state,
        "worker": alive,
        "model": service.models.names[0],
        "models": service.models.names,
        "queued": service.jobs.count("queued"),
        "running": service.jobs.count("running"),
        "offline": request.app.state.offline,
        "version": version("lorablend"),
    }
    return reply(form, status)


@router.get("/metrics", response_class=Response, responses=content("text/plain", description="The metrics"))
def get_metrics(service: Served) -> Response:
    """Get the metrics of jobs and workers in Prometheus' text format."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

"""How the server is: for people and balancers, and for Prometheus."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lorablend.app.jobs import STATES
from lorablend.app.rest_jobs import Served, reply

__all__ = ["router"]

router = APIRouter(tags=["lorablend"])
_RECENT = 100  # jobs that the mean is of


@router.get("/healthz")
def health(request: Request, service: Served) -> Response:
    """200 while the workers live, else 503."""
    alive = service.alive
    form = {
        "status": "ok" if alive else "down",
        "worker": alive,
        "model": service.models.names[0],
        "models": service.models.names,
        "queued": service.jobs.count("queued"),
        "running": service.jobs.count("running"),
        "offline": request.app.state.offline,
        "version": version("lorablend"),
    }
    return reply(form, 200 if alive else 503)


@router.get("/metrics", response_class=Response)
def metrics(service: Served) -> Response:
    """In Prometheus' text format, 0.0.4."""
    done = service.jobs.find(state="done", limit=_RECENT)
    seconds = [job.ended - job.started for job in done if job.ended is not None and job.started is not None]
    waited = [job.started - job.submitted for job in done if job.started is not None]
    lines = [
        "# HELP lorablend_jobs Jobs by state.",
        "# TYPE lorablend_jobs gauge",
        *(f'lorablend_jobs{{state="{state}"}} {service.jobs.count(state)}' for state in STATES),
        "# HELP lorablend_worker_up 1 while the workers live.",
        "# TYPE lorablend_worker_up gauge",
        f"lorablend_worker_up {int(service.alive)}",
        f"# HELP lorablend_job_seconds Mean time of the last {_RECENT} jobs that are done, while they ran.",
        "# TYPE lorablend_job_seconds gauge",
        f"lorablend_job_seconds {_mean(seconds):.6g}",
        f"# HELP lorablend_wait_seconds Mean time of the last {_RECENT} jobs that are done, while they waited.",
        "# TYPE lorablend_wait_seconds gauge",
        f"lorablend_wait_seconds {_mean(waited):.6g}",
    ]
    return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0

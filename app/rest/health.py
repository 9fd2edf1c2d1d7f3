"""How the server is: for people and balancers, and for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from statistics import fmean

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lorablend.app.jobs.jobs import STATES, Job
from lorablend.app.rest.shared import Served, reply

__all__ = ["router"]

router = APIRouter(tags=["lorablend"])
_RECENT = 100  # jobs that the mean is of


@router.head("/healthz", include_in_schema=False)  # as containers and watchers ask
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
    done = {kind: service.jobs.find(kind=kind, state="done", limit=_RECENT) for kind in service.jobs.kinds()}
    lines = [
        "# HELP lorablend_jobs Jobs by state.",
        "# TYPE lorablend_jobs gauge",
        *(f'lorablend_jobs{{state="{state}"}} {service.jobs.count(state)}' for state in STATES),
        "# HELP lorablend_worker_up 1 while the workers live.",
        "# TYPE lorablend_worker_up gauge",
        f"lorablend_worker_up {int(service.alive)}",
        f"# HELP lorablend_job_seconds Mean time of the last {_RECENT} done jobs of a kind, while they ran.",
        "# TYPE lorablend_job_seconds gauge",
        *_means("lorablend_job_seconds", done, "started", "ended"),
        f"# HELP lorablend_wait_seconds Mean time of the last {_RECENT} done jobs of a kind, while they waited.",
        "# TYPE lorablend_wait_seconds gauge",
        *_means("lorablend_wait_seconds", done, "submitted", "started"),
    ]
    return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


def _means(name: str, done: Mapping[str, list[Job]], start: str, end: str) -> list[str]:
    """A line for each kind of which any are done: drawing takes seconds, training hours, no mean is of both."""
    times = {kind: [getattr(job, end) - getattr(job, start) for job in jobs] for kind, jobs in done.items() if jobs}
    return [f'{name}{{kind="{kind}"}} {fmean(seconds):.6g}' for kind, seconds in times.items()]

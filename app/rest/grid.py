"""Grids: asked for here, watched at /api/jobs, and their sheets."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from lorablend.app.orders.grid import DrawGrid
from lorablend.app.rest.errors import Refusal
from lorablend.app.rest.jobs import job_form
from lorablend.app.rest.shared import Client, Served, in_thread, reply

__all__ = ["router"]

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": text}
    for status, text in ((400, "Wrong input"), (404, "Not there"), (422, "Wrong input"), (429, "Queue full"))
}
router = APIRouter(prefix="/api", tags=["lorablend"], responses=_REFUSALS)


@router.post("/grid", status_code=202)
async def submit_grid(grid: DrawGrid, service: Served, client: Client) -> Response:
    """Queue a grid: every combination of the axes' values, on one sheet. Location says where it can be asked for."""
    job = await in_thread(service.grids.submit, grid, client)
    return reply(job_form(job), 202, {"Location": f"/api/jobs/{job.id}"})


@router.get("/sheets")
def list_sheets(service: Served, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
    """The newest first."""
    sheets = [{"file": file, "url": f"/api/sheets/{file}"} for file in service.grids.sheets(limit)]
    return reply({"sheets": sheets})


@router.get("/sheets/{file:path}")
def get_sheet(file: str, service: Served) -> Response:
    """The sheet as a PNG, with the settings of its pictures in the text chunk `lorablend-grid`."""
    path = service.grids.sheet(file)
    headers = {
        "Cache-Control": "private, max-age=3600",
        "Content-Disposition": f'inline; filename="{path.name}"',
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    return Response(path.read_bytes(), headers=headers, media_type="image/png")


@router.delete("/sheets/{file:path}")
def delete_sheet(file: str, service: Served) -> Response:
    """Delete a sheet for good; its pictures stay in the gallery."""
    service.grids.delete(file)
    return reply({})

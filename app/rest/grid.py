"""Grids: ordered here, watched at /api/jobs, and their sheets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from lorablend.app.orders.grid import DrawGrid
from lorablend.app.rest.errors import refusals
from lorablend.app.rest.jobs import job_reply
from lorablend.app.rest.replies import Done, JobReply, SheetList
from lorablend.app.rest.shared import FILE_HEADERS, Client, Served, content, in_thread, reply

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["lorablend"], responses=refusals(400, 404, 422, 429))


@router.post("/grid", status_code=202, response_model=JobReply)
async def submit_grid(grid: DrawGrid, service: Served, client: Client) -> Response:
    """Queue a grid: every combination of the axes' values, on one sheet. Location says where to ask for the job."""
    return job_reply(await in_thread(service.grids.submit, grid, client))


@router.get("/sheets", response_model=SheetList)
def list_sheets(service: Served, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
    """List the sheets of grids, the newest first."""
    sheets = [{"file": file, "url": f"/api/sheets/{file}"} for file in service.grids.sheets(limit)]
    return reply({"sheets": sheets})


@router.get("/sheets/{file:path}", response_class=Response, responses=content("image/png"))
def get_sheet(file: str, service: Served) -> Response:
    """Get a sheet as a PNG, with the settings of its pictures in the text chunk `lorablend-grid`."""
    path = service.grids.sheet(file)
    headers = {**FILE_HEADERS, "Content-Disposition": f'inline; filename="{path.name}"'}
    return Response(path.read_bytes(), headers=headers, media_type="image/png")


@router.delete("/sheets/{file:path}", response_model=Done)
def delete_sheet(file: str, service: Served) -> Response:
    """Delete a sheet for good; its pictures stay in the gallery."""
    service.grids.delete(file)
    return reply({})

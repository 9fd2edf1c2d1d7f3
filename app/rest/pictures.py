"""What a picture says about how it was made, whichever program drew it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.datastructures import UploadFile

from lorablend.app.library.shelf import Shelf
from lorablend.app.rest.errors import ParameterError, refusals
from lorablend.app.rest.replies import PictureReading
from lorablend.app.rest.shared import Served, in_thread, reply
from lorablend.app.reuse import read_picture
from lorablend.app.service import Service

__all__ = ["PICTURE_BODY", "router", "sent_file"]

router = APIRouter(prefix="/api/pictures", tags=["lorablend"], responses=refusals(400, 422))
_BINARY = {"schema": {"type": "string", "format": "binary"}}
PICTURE_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": dict.fromkeys(("image/png", "image/jpeg", "image/webp"), _BINARY)}
}
"""A picture as the body of a request, for openapi.json."""


@router.post("/read", response_model=PictureReading, openapi_extra=PICTURE_BODY)
async def read(request: Request, service: Served) -> Response:
    """Read the settings in a picture: sent as the body itself, or as the field `file` of a multipart form.

    The settings are those of an order for /api/jobs. Adapters and models are looked up here; what is missing, or not
    done here, is listed. The picture is not kept.
    """
    content, name = await sent_file(request)
    return reply(await in_thread(_read, service, content, name))


def _read(service: Service, content: bytes, name: str) -> dict[str, Any]:
    return read_picture(service, Shelf(service.models.lora_dir), content, name or "the picture").to_json()


async def sent_file(request: Request) -> tuple[bytes, str]:
    """The file of a request, and its name, "" if it has none. Raises ParameterError."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await request.body(), ""
    async with request.form(max_files=2, max_fields=10) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise ParameterError("file", "the form has no file in the field file; send one")
        return await file.read(), (file.filename or "")[:80]

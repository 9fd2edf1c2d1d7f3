"""A1111's API: what there is to choose from, and the settings that clients read and write."""

from __future__ import annotations

from typing import Any

import psutil
from fastapi import APIRouter, Request
from fastapi.responses import Response

from lorablend.app.rest.a1111 import state_of
from lorablend.app.rest.a1111_forms import model_named
from lorablend.app.rest.adapters import adapter_entries
from lorablend.app.rest.errors import Refusal
from lorablend.app.rest.shared import Client, Served, reply
from lorablend.app.service import Service
from lorablend.engine.schedulers import SCHEDULERS
from lorablend.engine.schedulers.a1111 import SCHEDULE_TYPES

__all__ = ["router"]

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": text} for status, text in ((400, "Wrong input"), (422, "Wrong input"))
}
router = APIRouter(prefix="/sdapi/v1", tags=["A1111"], responses=_REFUSALS)


@router.get("/loras")
def loras(service: Served) -> Response:
    """The adapters that a tag may name; `path` is the file's name in the folder, and no path of this machine."""
    found = [
        {
            "name": entry.path.stem,
            "alias": entry.path.stem,
            "path": f"{entry.name}{entry.path.suffix}",
            "metadata": {
                "modelspec.title": entry.title,
                "modelspec.trigger_phrase": ", ".join(entry.trigger_words),
                "ss_base_model_version": entry.base_model,
                "ss_network_dim": str(max(entry.ranks)) if entry.ranks else None,
            },
        }
        for entry in adapter_entries(service)
        if not entry.error
    ]
    return reply(found)


@router.post("/refresh-loras")
@router.post("/refresh-checkpoints")
@router.post("/refresh-vae")
def refresh() -> Response:
    """Nothing to do: every list is read anew."""
    return reply({})


@router.get("/samplers")
def samplers() -> Response:
    return reply(
        [{"name": info.label, "aliases": [name, *info.aliases], "options": {}} for name, info in SCHEDULERS.items()]
    )


@router.get("/schedulers")
def schedulers() -> Response:
    more = {"aliases": None, "default_rho": -1.0, "need_inner_model": False}
    return reply([{"name": kind.name, "label": kind.label, **more} for kind in SCHEDULE_TYPES])


@router.get("/sd-models")
def models(service: Served) -> Response:
    more = {"hash": None, "sha256": None, "config": None}
    return reply([{"title": name, "model_name": name, "filename": name, **more} for name in service.models.names])


@router.get("/options")
def options(request: Request, service: Served, client: Client) -> Response:
    return reply(_options(request, service, client))


@router.post("/options")
def set_options(changes: dict[str, Any], request: Request, service: Served, client: Client) -> Response:
    """The model is for this client from now on; clients send back all that they read, which changes nothing else."""
    model = changes.get("sd_model_checkpoint")
    if isinstance(model, str) and model:
        state_of(request).choose(client, model_named(service, model))
    return reply({})


@router.get("/memory")
def memory() -> Response:
    """Bytes. cuda: there is none."""
    all_ = psutil.virtual_memory()
    ram = {"free": all_.available, "used": psutil.Process().memory_info().rss, "total": all_.total}
    return reply({"ram": ram, "cuda": {"error": "unavailable"}})


@router.get("/cmd-flags")
def flags() -> Response:
    return reply({"api": True, "listen": False, "share": False, "theme": None})


@router.get("/scripts")
def scripts() -> Response:
    return reply({"txt2img": [], "img2img": []})


@router.get("/embeddings")
def embeddings() -> Response:
    """Textual inversions come bundled in adapters, and are found by their name in the prompt."""
    return reply({"loaded": {}, "skipped": {}})


@router.get("/upscalers")
def upscalers() -> Response:
    return reply([{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4}])


@router.get("/latent-upscale-modes")
@router.get("/sd-vae")
@router.get("/sd-modules")
@router.get("/prompt-styles")
@router.get("/hypernetworks")
@router.get("/face-restorers")
@router.get("/realesrgan-models")
@router.get("/script-info")
def nothing() -> Response:
    """There are none."""
    return reply([])


def _options(request: Request, service: Service, client: str) -> dict[str, Any]:
    names = service.models.names
    chosen = state_of(request).chosen.get(client)
    return {
        "sd_model_checkpoint": chosen if chosen in names else names[0],  # it may have been removed since
        "sd_checkpoint_hash": None,
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
        "samples_format": "png",
        "samples_save": True,
        "enable_pnginfo": True,
        "eta_noise_seed_delta": 0,
        "face_restoration_model": None,
    }

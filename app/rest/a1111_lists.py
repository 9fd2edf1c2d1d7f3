"""A1111's API: lists of choices, and the settings that clients read and write."""

from __future__ import annotations

from typing import Any

import psutil
from fastapi import APIRouter, Request
from fastapi.responses import Response

from lorablend.app.rest.a1111 import state_of
from lorablend.app.rest.a1111_forms import model_named
from lorablend.app.rest.a1111_replies import (
    Embeddings,
    Flags,
    Lora,
    Memory,
    Nothing,
    Options,
    SamplerItem,
    SchedulerItem,
    Scripts,
    StableDiffusionModel,
    Upscaler,
)
from lorablend.app.rest.adapters import adapter_entries
from lorablend.app.rest.errors import refusals
from lorablend.app.rest.shared import Client, Served, reply
from lorablend.app.service import Service
from lorablend.engine.schedulers import SCHEDULERS
from lorablend.engine.schedulers.a1111 import SCHEDULE_TYPES

__all__ = ["router"]

router = APIRouter(prefix="/sdapi/v1", tags=["A1111"], responses=refusals(400, 422))


@router.get("/loras", response_model=list[Lora])
def list_loras(service: Served) -> Response:
    """List the adapters that a tag may name."""
    adapters = [
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
    return reply(adapters)


@router.post("/refresh-loras", response_model=Nothing)
@router.post("/refresh-checkpoints", response_model=Nothing)
@router.post("/refresh-vae", response_model=Nothing)
@router.post("/refresh-embeddings", response_model=Nothing)
def refresh() -> Response:
    """Do nothing: every list is up to date whenever it is read."""
    return reply({})


@router.get("/samplers", response_model=list[SamplerItem])
def list_samplers() -> Response:
    """List the samplers."""
    return reply(
        [{"name": info.label, "aliases": [name, *info.aliases], "options": {}} for name, info in SCHEDULERS.items()]
    )


@router.get("/schedulers", response_model=list[SchedulerItem])
def list_schedulers() -> Response:
    """List the schedules of noise."""
    more = {"aliases": None, "default_rho": -1.0, "need_inner_model": False}
    return reply([{"name": kind.name, "label": kind.label, **more} for kind in SCHEDULE_TYPES])


@router.get("/sd-models", response_model=list[StableDiffusionModel])
def list_sd_models(service: Served) -> Response:
    """List the base models."""
    more = {"hash": None, "sha256": None, "config": None}
    return reply([{"title": name, "model_name": name, "filename": name, **more} for name in service.models.names])


@router.head("/options", include_in_schema=False)
@router.get("/options", response_model=Options)
def get_options(request: Request, service: Served, client: Client) -> Response:
    """Get the settings of this client."""
    return reply(_options(request, service, client))


@router.post("/options", response_model=Nothing)
def set_options(changes: dict[str, Any], request: Request, service: Served, client: Client) -> Response:
    """Choose the model for this client; other settings, which clients send back as they read them, change nothing."""
    model = changes.get("sd_model_checkpoint")
    if isinstance(model, str) and model:
        state_of(request).choose(client, model_named(service, model))
    return reply({})


@router.get("/memory", response_model=Memory)
def get_memory() -> Response:
    """Get the memory of the server's machine, in bytes; there is never CUDA memory."""
    memory = psutil.virtual_memory()
    ram = {"free": memory.available, "used": psutil.Process().memory_info().rss, "total": memory.total}
    return reply({"ram": ram, "cuda": {"error": "unavailable"}})


@router.get("/cmd-flags", response_model=Flags)
def get_flags() -> Response:
    """Get command-line flags that clients look for."""
    return reply({"api": True, "listen": False, "share": False, "theme": None})


@router.get("/scripts", response_model=Scripts)
def list_scripts() -> Response:
    """List the scripts: there are none."""
    return reply({"txt2img": [], "img2img": []})


@router.get("/embeddings", response_model=Embeddings)
def list_embeddings() -> Response:
    """List textual inversions: none, because they come bundled in adapters and are used by their name in the prompt."""
    return reply({"loaded": {}, "skipped": {}})


@router.get("/upscalers", response_model=list[Upscaler])
def list_upscalers() -> Response:
    """List the upscalers: only the one that does nothing."""
    return reply([{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4}])


@router.get("/latent-upscale-modes", response_model=list[Nothing])
@router.get("/sd-vae", response_model=list[Nothing])
@router.get("/sd-modules", response_model=list[Nothing])
@router.get("/prompt-styles", response_model=list[Nothing])
@router.get("/hypernetworks", response_model=list[Nothing])
@router.get("/face-restorers", response_model=list[Nothing])
@router.get("/realesrgan-models", response_model=list[Nothing])
@router.get("/script-info", response_model=list[Nothing])
@router.get("/extensions", response_model=list[Nothing])
def list_nothing() -> Response:
    """List what this server does not have: an empty list."""
    return reply([])


def _options(request: Request, service: Service, client: str) -> dict[str, Any]:
    names = service.models.names
    chosen = state_of(request).chosen.get(client)
    return {
        "sd_model_checkpoint": chosen if chosen in names else names[0],  # the chosen one may have been removed since
        "sd_checkpoint_hash": None,
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
        "samples_format": "png",
        "samples_save": True,
        "enable_pnginfo": True,
        "eta_noise_seed_delta": 0,
        "face_restoration_model": None,
    }

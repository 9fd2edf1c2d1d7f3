"""A1111's API: pictures from text and from pictures, their progress, and the settings in a picture."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from lorablend.adapters.errors import RequestError
from lorablend.app.jobs.jobs import ENDED, Job
from lorablend.app.pictures.infotext import parse_infotext
from lorablend.app.pictures.png import parameters_of
from lorablend.app.pictures.uploads import opened
from lorablend.app.rest.a1111_forms import ImageToImage, TextToImage, decode
from lorablend.app.rest.a1111_replies import ImageInfo, Images, Nothing, ProgressReply
from lorablend.app.rest.errors import ParameterError, refusals
from lorablend.app.rest.shared import (
    Client,
    JobFailedError,
    Served,
    finished,
    in_thread,
    pictures,
    reply,
    submit,
    to_base64,
)
from lorablend.app.service import Service
from lorablend.engine.pixel_budget import BUDGET
from lorablend.engine.schedulers import SCHEDULERS
from lorablend.engine.settings import Settings

__all__ = ["A1111", "router", "state_of"]

router = APIRouter(prefix="/sdapi/v1", tags=["A1111"], responses=refusals(400, 404, 409, 422, 429))
_MOST_CHOICES = 1000  # clients whose choice of a model is remembered


@dataclass
class A1111:
    """What this face remembers while the server runs, by client: the jobs waited for, and the chosen model."""

    waiting: dict[str, list[str]] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)

    def choose(self, client: str, model: str) -> None:
        """Draw with this model when the client names none."""
        if len(self.chosen) < _MOST_CHOICES or client in self.chosen:
            self.chosen[client] = model

    def jobs(self, service: Service, client: str) -> list[Job]:
        """The client's jobs that have not ended, the running one first."""
        jobs = [service.jobs.get(job) for job in list(self.waiting.get(client, []))]
        return sorted(
            (job for job in jobs if job.state not in ENDED), key=lambda job: (job.state != "running", job.number)
        )


def state_of(request: Request) -> A1111:
    """The state of this face behind a request."""
    return request.app.state.a1111


class PictureForm(BaseModel):
    """A picture's file in base64, or as a data URL."""

    image: str | None = None


@router.post("/txt2img", response_model=Images)
async def text_to_image(form: TextToImage, request: Request, service: Served, client: Client) -> Response:
    """Draw pictures from a prompt, and wait for them."""
    return await _drawn(form, request, service, client)


@router.post("/img2img", response_model=Images)
async def image_to_image(form: ImageToImage, request: Request, service: Served, client: Client) -> Response:
    """Draw pictures from a picture, with a mask if there is one, and wait for them."""
    return await _drawn(form, request, service, client)


@router.get("/progress", response_model=ProgressReply)
def get_progress(request: Request, service: Served, client: Client, skip_current_image: bool = False) -> Response:
    """Get the progress of the client's own job; 0 and no job if there is none."""
    jobs = state_of(request).jobs(service, client)
    job = jobs[0] if jobs else None
    now = job.progress if job else None
    done = now.step / now.steps if now and now.steps else 0.0
    preview = to_base64(now.preview) if now and now.preview and not skip_current_image else None
    state = {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": job.id if job else "",
        "job_count": len(jobs),
        "job_timestamp": _timestamp(job),
        "job_no": 0,
        "sampling_step": now.step if now else 0,
        "sampling_steps": now.steps if now else 0,
    }
    return reply(
        {
            "progress": done,
            "eta_relative": (now.eta or 0.0) if now else 0.0,
            "state": state,
            "current_image": preview,
            "textinfo": ("waiting in the queue" if job.state == "queued" else now.text or None if now else None)
            if job
            else None,
            "current_task": job.id if job else None,
        }
    )


@router.post("/interrupt", response_model=Nothing)
@router.post("/skip", response_model=Nothing)
def interrupt(request: Request, service: Served, client: Client) -> Response:
    """Cancel the client's own jobs; those of other clients go on."""
    for job in state_of(request).jobs(service, client):
        service.jobs.cancel(job.id)
    return reply({})


@router.post("/png-info", response_model=ImageInfo)
def png_info(form: PictureForm) -> Response:
    """Read the settings in a picture: as text, and parsed."""
    text = _settings_in(decode("image", form.image or ""))
    infotext = parse_infotext(text)
    parameters: dict[str, Any] = {}
    if text and not text.startswith("{"):  # other programs' settings in JSON
        parameters = {"Prompt": infotext.prompt, "Negative prompt": infotext.negative_prompt, **infotext.settings}
        width, x, height = infotext.settings.get("Size", "").partition("x")
        if x:
            parameters |= {"Size-1": width, "Size-2": height}
    return reply({"info": text, "items": {"parameters": text} if text else {}, "parameters": parameters})


async def _drawn(form: TextToImage, request: Request, service: Service, client: str) -> Response:
    state, echo = state_of(request), _echo(form)
    draw = await in_thread(form.draw, service, state.chosen.get(client))
    job = await submit(service, draw, client)
    mine = state.waiting.setdefault(client, [])
    mine.append(job.id)
    try:
        job = await finished(request, service, job)
        contents = await pictures(service, job)
    except JobFailedError as error:
        if error.job.state != "cancelled":
            raise
        job, contents = error.job, []  # interrupted: clients expect a reply without pictures
    finally:
        mine.remove(job.id)
        if not mine:
            state.waiting.pop(client, None)
    info = await in_thread(_info, form, job, service)
    images = [to_base64(content) for content in contents] if form.send_images is not False else []
    return reply({"images": images, "parameters": echo, "info": json.dumps(info)})


def _echo(form: TextToImage) -> dict[str, Any]:
    """What was sent, for the reply. Raises ParameterError, before anything is drawn."""
    try:
        pictures_sent = () if form.shows_images else ("init_images", "mask")
        text = form.model_dump_json(exclude={*(form.model_extra or {}), *pictures_sent})
    except PydanticSerializationError:
        raise ParameterError("body", "the body has too many objects in one another; send it flatter") from None
    return json.loads(text, parse_constant=lambda _: None)


def _info(form: TextToImage, job: Job, service: Service) -> dict[str, Any]:
    """A1111's description of the pictures."""
    request = job.request
    files = [picture["file"] for picture in job.result["pictures"]] if job.result else []
    drawn = [service.gallery.get(file) for file in files]
    seeds = [picture["seed"] for picture in job.result["pictures"]] if job.result else [request["seed"]]
    settings = parse_infotext(drawn[0].parameters).settings if drawn else {}
    count = len(seeds)
    negative = form.negative_prompt or ""
    prompt = form.prompt or ""
    model = request.get("model") or service.models.names[0]
    return {
        "prompt": prompt,
        "all_prompts": [prompt] * count,
        "negative_prompt": negative,
        "all_negative_prompts": [negative] * count,
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": seeds[0],
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": drawn[0].width if drawn else form.width,
        "height": drawn[0].height if drawn else form.height,
        "sampler_name": settings.get("Sampler", _label(request.get("scheduler"))),
        "cfg_scale": request.get("guidance_scale", Settings.guidance_scale),
        "steps": request.get("steps"),
        "batch_size": form.batch_size or 1,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": model,
        "sd_model_hash": None,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": request.get("strength"),
        "extra_generation_params": {
            name: settings[name] for name in ("Schedule type", "Lora hashes") if name in settings
        },
        "index_of_first_image": 0,
        "infotexts": [picture.parameters for picture in drawn],
        "styles": [],
        "job_timestamp": _timestamp(job),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": f"lorablend {version('lorablend')}",
        "warnings": [*(job.result["warnings"] if job.result else ["interrupted"]), *form.warnings],
    }


def _label(scheduler: str | None) -> str | None:
    return SCHEDULERS[scheduler].label if scheduler else None


def _timestamp(job: Job | None) -> str:
    return f"{datetime.fromtimestamp(job.submitted if job else time.time()):%Y%m%d%H%M%S}"


def _settings_in(content: bytes) -> str:
    """The text in a picture, "" if there is none. The picture is not kept. Raises ParameterError."""
    try:
        with opened(io.BytesIO(content), BUDGET) as picture:
            picture.load()
            return parameters_of(picture) or ""
    except RequestError as error:
        raise ParameterError("image", f"image: {error}") from error

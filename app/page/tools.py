"""Endpoints of the page for other programs: Gradio's clients call them by name, assistants as MCP tools."""

# Without `from __future__ import annotations`: Gradio reads the annotations of the tools at run time.

from pathlib import Path
from typing import Any

import gradio as gr
from anyio import CapacityLimiter, to_thread
from gradio.data_classes import FileData
from gradio.processing_utils import save_file_to_cache

from lorablend.adapters.errors import LorablendError
from lorablend.app.jobs.jobs import ENDED, Job
from lorablend.app.orders.draw import Draw
from lorablend.app.page.say import saying
from lorablend.app.service import Service
from lorablend.engine.settings import Settings

__all__ = ["make_tools"]

_WAITING = 100  # threads for waiting requests, each in use for at most a second at a time


def make_tools(service: Service, page: gr.Blocks) -> None:
    """Add the endpoints draw, list_adapters and list_models, each of which is also an MCP tool."""
    waiting = CapacityLimiter(_WAITING)

    async def draw(
        prompt: str,
        request: gr.Request,
        negative_prompt: str = "",
        adapters: dict[str, float] = {},  # noqa: B006 - read, and shown as the default
        width: int = 0,
        height: int = 0,
        steps: int = 0,
        guidance_scale: float = Settings.guidance_scale,
        seed: int = -1,
        model: str = "",
    ) -> tuple[dict, str]:
        """Draw a picture from a description.

        Args:
            prompt: What the picture should show. Tags such as <lora:ink:0.8> add adapters, like `adapters`.
            negative_prompt: What it should not show.
            adapters: Names of adapters (see list_adapters) with their weights; 1 is full strength, 0 is off.
            width: Pixels, a multiple of 8; 0 for the model's own size.
            height: Pixels, a multiple of 8; 0 for the model's own size.
            steps: Number of steps; 0 for the model's own.
            guidance_scale: How closely to follow the prompt, 1 to 20.
            seed: The same seed gives the same picture; -1 chooses a random one.
            model: A name from list_models; empty for the first one.

        Returns:
            The picture, and its settings as text.
        """
        with saying(service):
            order = Draw(
                prompt=prompt,
                negative_prompt=negative_prompt or None,
                blend=[[name, weight] for name, weight in adapters.items()] if isinstance(adapters, dict) else adapters,
                width=width or None,
                height=height or None,
                steps=steps or None,
                guidance_scale=guidance_scale,
                seed=None if isinstance(seed, int) and seed < 0 else seed,
                model=model or None,
            )
            job = await to_thread.run_sync(service.draw, order, _client(request))
            job = await _ended(service, job, waiting)
            if job.state != "done":
                raise LorablendError(job.reason or "the job was cancelled")
            picture = service.gallery.get(job.result["pictures"][0]["file"])
            return _file(service.gallery.path(picture.file), page), picture.parameters

    def list_adapters() -> list:
        """List the adapters (styles, characters, speed-ups) that draw can use.

        Returns:
            For each: name, trigger words to use in the prompt, base model, and an error if it cannot be used.
        """
        return [
            {
                "name": entry.name,
                "trigger_words": list(entry.trigger_words),
                "base_model": entry.base_model,
                "error": service.public(entry.error) if entry.error else None,
            }
            for entry in service.shelf.entries()
        ]

    def list_models() -> list:
        """List the models that draw can use; the first one is the default.

        Returns:
            For each: name, family and native size.
        """
        models = []
        for name in service.models.names:
            model = service.models.get(name).model
            models.append({"name": name, "family": model.family, "size": list(model.default_size)})
        return models

    # Without Gradio's queue: the jobs have their own, and with it MCP would call its own server without a login.
    for tool in (draw, list_adapters, list_models):
        gr.api(tool, api_name=tool.__name__, queue=False)


async def _ended(service: Service, job: Job, waiting: CapacityLimiter) -> Job:
    """Wait for the job to end; cancel it if the client stops waiting."""
    try:
        while job.state not in ENDED:
            job = await to_thread.run_sync(service.wait, job, 1.0, abandon_on_cancel=True, limiter=waiting)
    finally:
        if job.state not in ENDED:
            service.jobs.cancel(job.id)
    return job


def _client(request: gr.Request) -> str:
    http_request: Any = getattr(request, "request", request)  # MCP passes the request that Gradio's would wrap
    return http_request.scope.get("lorablend.user") or (http_request.client.host if http_request.client else "")


def _file(path: Path, page: gr.Blocks) -> dict[str, Any]:
    """An exact copy that Gradio may serve."""
    return FileData(path=save_file_to_cache(path, page.GRADIO_CACHE), orig_name=path.name).model_dump()

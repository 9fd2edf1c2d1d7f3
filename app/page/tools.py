"""What programs call on the page's own server: Gradio's clients by name, and assistants as tools of MCP."""

# No annotations from the future here: Gradio reads those of the tools as they stand.

from pathlib import Path
from typing import Any

import gradio as gr
from anyio import CapacityLimiter, to_thread
from gradio.data_classes import FileData
from gradio.processing_utils import save_file_to_cache

from lorablend.adapters.errors import LorablendError
from lorablend.app.jobs.jobs import ENDED, Job
from lorablend.app.library.shelf import Shelf
from lorablend.app.orders.draw import Draw
from lorablend.app.page.say import saying
from lorablend.app.service import Service
from lorablend.engine.settings import Settings

__all__ = ["make_tools"]

_WAITING = 100  # threads for requests that wait; each is held for a second at most


def make_tools(service: Service, page: gr.Blocks) -> None:
    """Add the endpoints, each a tool too: draw, list_adapters, list_models."""
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
            prompt: What the picture shows. Tags such as <lora:ink:0.8> add adapters, as `adapters` does.
            negative_prompt: What it is not to show.
            adapters: Names of adapters (see list_adapters) and their weights; 1 is full strength, 0 off.
            width: Pixels, a multiple of 8; 0 for the model's own size.
            height: Pixels, a multiple of 8; 0 for the model's own size.
            steps: 0 for the model's own number.
            guidance_scale: How closely the prompt is followed, 1 to 20.
            seed: The same seed gives the same picture; -1 draws one by chance.
            model: A name that list_models knows; empty for the first one.

        Returns:
            The picture, and its settings as text.
        """
        with saying(service):
            asked = Draw(
                prompt=prompt,
                negative_prompt=negative_prompt or None,
                blend=[[name, weight] for name, weight in adapters.items()],
                width=width or None,
                height=height or None,
                steps=steps or None,
                guidance_scale=guidance_scale,
                seed=None if seed < 0 else seed,
                model=model or None,
            )
            job = await to_thread.run_sync(service.draw, asked, _client(request))
            job = await _ended(service, job, waiting)
            if job.state != "done":
                raise LorablendError(job.reason or "the job was cancelled")
            picture = service.gallery.get(job.result["pictures"][0]["file"])
            return _file(service.gallery.path(picture.file), page), picture.parameters

    def list_adapters() -> list:
        """List the adapters (styles, characters, speed-ups) that draw can use.

        Returns:
            Name, trigger words to write into the prompt, base model and any error of each.
        """
        return [
            {
                "name": entry.name,
                "trigger_words": list(entry.trigger_words),
                "base_model": entry.base_model,
                "error": service.public(entry.error) if entry.error else None,
            }
            for entry in Shelf(service.models.lora_dir).entries()
        ]

    def list_models() -> list:
        """List the models that draw can use; the first one is the default.

        Returns:
            Name, family and own size of each.
        """
        found = []
        for name in service.models.names:
            model = service.models.get(name).model
            found.append({"name": name, "family": model.family, "size": list(model.default_size)})
        return found

    # Without Gradio's queue: the jobs have one of their own, and behind it MCP would call its own server, unlogged.
    for tool in (draw, list_adapters, list_models):
        gr.api(tool, api_name=tool.__name__, queue=False)


async def _ended(service: Service, job: Job, waiting: CapacityLimiter) -> Job:
    """The job at its end; cancelled where nobody waits for it any more."""
    try:
        while job.state not in ENDED:
            job = await to_thread.run_sync(service.wait, job, 1.0, abandon_on_cancel=True, limiter=waiting)
    finally:
        if job.state not in ENDED:
            service.jobs.cancel(job.id)
    return job


def _client(request: gr.Request) -> str:
    asked: Any = getattr(request, "request", request)  # MCP hands over what Gradio's requests are made from
    return asked.scope.get("lorablend.user") or (asked.client.host if asked.client else "")


def _file(path: Path, page: gr.Blocks) -> dict[str, Any]:
    """A copy that Gradio may serve, byte for byte."""
    return FileData(path=save_file_to_cache(path, page.GRADIO_CACHE), orig_name=path.name).model_dump()

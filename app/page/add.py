"""How adapters come into the library by the page: from a file at once, from elsewhere as a job that any tab shows."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from lorablend.adapters.errors import RequestError
from lorablend.app.jobs.jobs import Job
from lorablend.app.library.library import Library
from lorablend.app.library.shelf import Shelf
from lorablend.app.page.client import client_of, user_of
from lorablend.app.page.form import Values
from lorablend.app.page.say import AT_ONCE, CHANGING, GREY, saying
from lorablend.app.page.stage import job_stage, text_stage
from lorablend.app.service import Service

__all__ = ["library_of", "make_add"]

_BUSY, _IDLE = 0.6, 4.0  # seconds between two looks at the jobs


def make_add(service: Service, shelf: Shelf, name: gr.Dropdown, tab: gr.Tab) -> gr.State:
    """Lay it out and wire it. name: the list of adapters, in which a file that was added is chosen.

    Returns a State that changes with each adapter that came in.
    """
    with gr.Accordion("Add to the library", open=False, visible=service.models.lora_dir is not None):
        upload = gr.File(label="Adapter file", file_types=[".safetensors"], height=120, elem_id="upload")
        address = gr.Textbox(
            label="Or an address, or hf:owner/repo[/file] on the Hugging Face Hub",
            placeholder="https://… or hf:owner/repo",
        )
        own_name = gr.Textbox(label="Name (if another than the file's)")
        bring = gr.Button("Add", size="sm")
        brought = gr.HTML("")
        stage = gr.HTML("", elem_id="add-stage")
        stop = gr.Button("Stop the download", variant="stop", size="sm", visible=False)
    seen, done, timer = gr.State(None), gr.State(""), gr.Timer(_IDLE, active=False)

    def add(path: str | None, text: str, wanted: str, request: gr.Request) -> Values:
        text, own = (text or "").strip(), (wanted or "").strip()
        said: Values = {upload: None, address: "", own_name: ""}
        with saying(service):
            if path and text:
                raise RequestError("both a file and an address are given; take one of them away")
            if not path:
                if not text:
                    raise RequestError("nothing is given; choose a file, or write https://… or hf:owner/repo")
                service.adding.submit(text, own, client_of(request))
                said |= {brought: "", seen: True, stop: gr.Button(visible=True, interactive=True)}
                return said | {timer: gr.Timer(_BUSY, active=True)}
            entry = library_of(service, shelf).add(path, name=own or Path(path).stem)
            said |= {name: gr.Dropdown(shelf.names(), value=entry.name), done: entry.name}
        return said | {brought: f"<p>{html.escape(entry.name)} is in the library</p>"}

    def look(before: Any, request: gr.Request) -> Values:
        job, waiting = service.jobs.current("add")
        busy = job is not None and job.state in ("queued", "running")
        mine = service.jobs.stoppable(user_of(request), "add")
        now = (busy, mine and mine.id)
        said: Values = {stage: _stage(job, waiting), seen: now}
        if before != now:  # else a button that was pressed would stay grey for the next download
            said |= {
                timer: gr.Timer(_BUSY if busy else _IDLE, active=True),
                stop: gr.Button(visible=mine is not None, interactive=True),
            }
        if before is not None and job is not None and job.state == "done":  # not one that was there already
            said[done] = job.id
        return said

    def cancel(request: gr.Request) -> None:
        if job := service.jobs.stoppable(user_of(request), "add"):
            service.jobs.cancel(job.id)

    boxes = [upload, address, own_name]
    outputs = [brought, name, *boxes, seen, timer, stop, done]
    gr.on([bring.click, address.submit], add, boxes, outputs, show_progress_on=brought, api_visibility="private")
    stop.click(None, None, stop, js=GREY, **AT_ONCE)
    stop.click(cancel, None, None, **AT_ONCE)
    gr.on([tab.select, timer.tick], look, seen, [stage, seen, timer, stop, done], **CHANGING)
    return done


def library_of(service: Service, shelf: Shelf) -> Library:
    """To change something in it: a plain folder becomes a library with that. Raises RequestError without a folder."""
    folder = service.models.lora_dir
    if folder is None:
        raise RequestError("adapters cannot be added here; start the server with --lora-dir and a folder of your own")
    return shelf.library or Library(folder)


def _stage(job: Job | None, waiting: int) -> str:
    if job is None:
        return ""
    if job.state == "done":
        return text_stage(f"{job.result['adapter']} is in the library")
    return job_stage(job, waiting, job.request["source"])

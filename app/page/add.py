"""Adding adapters on the page: a file is added at once, a download is a job that every tab shows."""

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

_BUSY, _IDLE = 0.6, 4.0  # seconds between two checks of the jobs


def make_add(service: Service, shelf: Shelf, name: gr.Dropdown, tab: gr.Tab) -> gr.State:
    """Lay out the accordion and wire it.

    Args:
        service: Runs the downloads.
        shelf: The adapters.
        name: The list of adapters, in which an added file is chosen.
        tab: Its selection refreshes the state of the download.

    Returns:
        A State that changes with each adapter that is added.
    """
    with gr.Accordion("Add to the library", open=False, visible=service.models.lora_dir is not None):
        upload = gr.File(label="Adapter file", file_types=[".safetensors"], height=120, elem_id="upload")
        address = gr.Textbox(
            label="Or a web address, or hf:owner/repo[/file] on the Hugging Face Hub",
            placeholder="https://… or hf:owner/repo",
        )
        own_name = gr.Textbox(label="Name (if it should differ from the file's)")
        begin = gr.Button("Add", size="sm")
        note = gr.HTML("")
        stage = gr.HTML("", elem_id="add-stage")
        stop = gr.Button("Stop the download", variant="stop", size="sm", visible=False)
    seen, done, timer = gr.State(None), gr.State(""), gr.Timer(_IDLE, active=False)

    def add(path: str | None, text: str, wanted: str, request: gr.Request) -> Values:
        text, chosen = (text or "").strip(), (wanted or "").strip()
        updates: Values = {upload: None, address: "", own_name: ""}
        with saying(service):
            if path and text:
                raise RequestError("both a file and an address are given; remove one of them")
            if not path:
                if not text:
                    raise RequestError(
                        "no file or address is given; choose a file, or enter https://… or hf:owner/repo"
                    )
                service.adding.submit(text, chosen, client_of(request))
                updates |= {note: "", seen: True, stop: gr.Button(visible=True, interactive=True)}
                return updates | {timer: gr.Timer(_BUSY, active=True)}
            entry = library_of(service, shelf).add(path, name=chosen or Path(path).stem)
            updates |= {name: gr.Dropdown(shelf.names(), value=entry.name), done: entry.name}
        return updates | {note: f"<p>{html.escape(entry.name)} is in the library</p>"}

    def look(before: Any, request: gr.Request) -> Values:
        job, waiting = service.jobs.current("add")
        busy = job is not None and job.state in ("queued", "running")
        mine = service.jobs.stoppable(user_of(request), "add")
        now = (busy, mine and mine.id)
        updates: Values = {stage: _stage(job, waiting), seen: now}
        if before != now:  # this also enables a pressed button again for the next download
            updates |= {
                timer: gr.Timer(_BUSY if busy else _IDLE, active=True),
                stop: gr.Button(visible=mine is not None, interactive=True),
            }
        if before is not None and job is not None and job.state == "done":  # not one that had already ended
            updates[done] = job.id
        return updates

    def cancel(request: gr.Request) -> None:
        if job := service.jobs.stoppable(user_of(request), "add"):
            service.jobs.cancel(job.id)

    boxes = [upload, address, own_name]
    outputs = [note, name, *boxes, seen, timer, stop, done]
    gr.on([begin.click, address.submit], add, boxes, outputs, show_progress_on=note, api_visibility="private")
    stop.click(None, None, stop, js=GREY, **AT_ONCE)
    stop.click(cancel, None, None, **AT_ONCE)
    gr.on([tab.select, timer.tick], look, seen, [stage, seen, timer, stop, done], **CHANGING)
    return done


def library_of(service: Service, shelf: Shelf) -> Library:
    """The library, to change it; a plain folder becomes a library. Raises RequestError without a folder."""
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

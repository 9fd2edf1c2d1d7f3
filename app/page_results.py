"""The right side of the page: what is being drawn, and the newest pictures; the same in every tab and at any time."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from lorablend.adapters.errors import RequestError
from lorablend.app.jobs import Job
from lorablend.app.page_form import Values
from lorablend.app.page_say import AT_ONCE
from lorablend.app.service import Service
from lorablend.app.stage import job_stage

__all__ = ["Comparison", "Results", "make_results", "wire_results"]

_KINDS = ("draw", "grid")
_SHOWN = 12  # pictures
_BUSY, _IDLE = 0.4, 3.0  # seconds between two looks at the jobs

Comparison = list[tuple[str, str]]
"""(label, job) of each picture of a row."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """picture: one of them large. gallery: a strip of the newest, without Gradio's own large view: that takes the
    keyboard's focus whenever a picture comes in, from whatever is being written or chosen.

    shown: the files in the strip, the newest first. chosen: the file that is large, whose settings are in `text`.

    seen: what the last look found, so that nothing is sent twice.
    """

    stage: gr.HTML
    stop: gr.Button
    picture: gr.Image
    gallery: gr.Gallery
    text: gr.Textbox
    reuse: gr.Button
    begin: gr.Button
    row: gr.Gallery
    compared: gr.State
    shown: gr.State
    chosen: gr.State
    seen: gr.State
    timer: gr.Timer

    def boxes(self) -> set[Any]:
        return {getattr(self, field.name) for field in fields(self)}


def make_results(stop: gr.Button) -> Results:
    """Lay out the right side; the stop button stands beside the one that begins."""
    stage = gr.HTML(job_stage(None, 0), elem_id="stage")
    row = gr.Gallery(
        label="Comparison, same seed",
        columns=4,
        object_fit="contain",
        interactive=False,
        visible=False,
        height="auto",
        elem_id="row",
    )
    picture = gr.Image(
        label="Picture",
        type="filepath",
        height=480,
        interactive=False,
        visible=False,
        buttons=["download", "fullscreen"],
        elem_id="picture",
    )
    gallery = gr.Gallery(
        label="Newest pictures",
        show_label=False,
        columns=6,
        fit_columns=False,
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        visible=False,
        buttons=[],
        elem_id="newest",
    )
    with gr.Row(elem_classes="actions"):
        reuse = gr.Button("Use these settings", size="sm", visible=False)
        begin = gr.Button("Start from this picture", size="sm", visible=False)
    text = gr.Textbox(label="Settings of the picture", lines=3, max_lines=10, visible=False)
    return Results(
        stage=stage,
        stop=stop,
        picture=picture,
        gallery=gallery,
        text=text,
        reuse=reuse,
        begin=begin,
        row=row,
        compared=gr.State([]),
        shown=gr.State([]),
        chosen=gr.State(""),
        seen=gr.State(None),
        timer=gr.Timer(_IDLE),
    )


def wire_results(service: Service, results: Results, page: gr.Blocks) -> None:
    """Look at the jobs when the page is opened, and again and again."""

    def look(seen: Any, compared: Comparison, chosen: str) -> Values:
        job, waiting = _current(service)
        busy = job is not None and job.state in ("queued", "running")
        files = [
            picture.file
            for picture in service.gallery.find(limit=_SHOWN)
            if service.gallery.path(picture.file).is_file()
        ]
        done = _done(service, compared)
        now = (busy, files, len(done), chosen)
        said: Values = {results.stage: _stage(job, waiting), results.seen: now}
        if seen is None or seen[0] != busy:
            said |= {results.timer: gr.Timer(_BUSY if busy else _IDLE), results.stop: gr.Button(interactive=busy)}
        if seen is None or seen[:2] != now[:2]:
            said |= _pictures(service, results, files, busy)
        if done and (seen is None or seen[2] != now[2]):
            paths = [(save_file_to_cache(path, results.row.GRADIO_CACHE), label) for label, path in done]
            said[results.row] = gr.Gallery(paths, visible=True, columns=min(max(len(compared), 1), 4))
        return said

    def stop() -> gr.Button:
        job, _ = _current(service)
        if job is not None:
            service.jobs.cancel(job.id)
        return gr.Button(interactive=False)

    def select(shown: list[str], event: gr.SelectData) -> Values:
        file = shown[event.index]
        try:
            text = service.gallery.get(file).parameters
            return {results.chosen: file, results.picture: _large(service, results, file), results.text: text}
        except (RequestError, FileNotFoundError):  # deleted meanwhile
            return {results.chosen: gr.skip()}

    results.stop.click(stop, None, results.stop, **AT_ONCE)
    results.gallery.select(select, results.shown, [results.chosen, results.picture, results.text], **AT_ONCE)
    outputs = results.boxes() - {results.compared}
    gr.on(
        [page.load, results.timer.tick], look, [results.seen, results.compared, results.chosen], [*outputs], **AT_ONCE
    )


def _current(service: Service) -> tuple[Job | None, int]:
    """The running job, else the next that waits, else the last that ended; and how many wait behind it.

    Of those that draw: what makes a model or trains has a tab of its own, and is not stopped here.
    """
    queued, running = (
        [job for job in service.jobs.find(state=state, limit=100) if job.kind in _KINDS]
        for state in ("queued", "running")
    )
    if running:
        return running[0], len(queued)
    if queued:
        return queued[-1], len(queued) - 1
    ended = [job for kind in _KINDS for job in service.jobs.find(kind=kind, limit=1)]
    return max(ended, key=lambda job: job.number, default=None), 0


def _stage(job: Job | None, waiting: int) -> str:
    prompt = str(job.request.get("prompt", "")) if job and isinstance(job.request, dict) else ""
    return job_stage(job, waiting, prompt)


def _pictures(service: Service, results: Results, files: list[str], busy: bool) -> Values:
    """The strip of the newest pictures, and, unless one is being drawn, the newest large.

    Copies that Gradio may serve, byte for byte; the folder itself stays closed to browsers.
    """
    copies = [save_file_to_cache(service.gallery.path(file), results.gallery.GRADIO_CACHE) for file in files]
    first = files[0] if files else ""
    there = bool(files)
    return {
        results.picture: _large(service, results, first) if first and not busy else gr.Image(visible=False),
        results.gallery: gr.Gallery(
            [(copy, _words(service, file)) for copy, file in zip(copies, files, strict=True)],
            selected_index=0 if there else None,
            visible=len(files) > 1,
        ),
        results.shown: files,
        results.chosen: first,
        results.text: gr.Textbox(service.gallery.get(first).parameters if first else "", visible=there),
        results.reuse: gr.Button(visible=there),
        results.begin: gr.Button(visible=there),
    }


def _large(service: Service, results: Results, file: str) -> gr.Image:
    copy = save_file_to_cache(service.gallery.path(file), results.picture.GRADIO_CACHE)
    return gr.Image(copy, alt_text=_words(service, file) or "The picture", visible=True)


def _words(service: Service, file: str) -> str:
    """The picture's alternative text."""
    return service.gallery.get(file).prompt[:60]


def _done(service: Service, compared: Comparison) -> list[tuple[str, Path]]:
    """The pictures of a comparison that are there."""
    found = []
    for label, name in compared:
        job = service.jobs.get(name)
        for picture in (job.result or {}).get("pictures", ())[:1]:
            try:
                found.append((label, service.gallery.path(picture["file"])))
            except RequestError:  # deleted meanwhile
                continue
    return found

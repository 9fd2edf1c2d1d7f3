"""The right side of the page: the running drawing and the newest pictures, the same in every browser tab."""

from __future__ import annotations

import html
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from lorablend.adapters.errors import RequestError
from lorablend.app.jobs.jobs import Job
from lorablend.app.page.client import user_of
from lorablend.app.page.form import Values
from lorablend.app.page.say import AT_ONCE, CHOOSING, GREY
from lorablend.app.page.stage import job_stage
from lorablend.app.service import Service

__all__ = ["Results", "make_results", "wire_results"]

_KINDS = ("draw", "grid")  # other kinds of jobs are shown and stopped in tabs of their own
_SHOWN = 12  # pictures
_LONGEST = 100  # pictures of a comparison; the queue holds fewer
_BUSY, _IDLE = 0.4, 3.0  # seconds between two checks of the jobs


@dataclass(frozen=True, kw_only=True)
class Results:
    """The components of the right side.

    Attributes:
        stage: The running job, with its progress.
        picture: The chosen picture, large.
        gallery: A strip of the newest pictures, without Gradio's own large view, which takes the keyboard's focus
            whenever a picture arrives.
        text: The settings of the chosen picture.
        row, failed: The pictures of a comparison, and why some are missing.
        shown: The files in the strip, the newest first.
        chosen: The file of the chosen picture.
        seen: The result of the last check, so that nothing is sent twice.
        timer: Triggers the checks.
    """

    stage: gr.HTML
    stop: gr.Button
    picture: gr.Image
    gallery: gr.Gallery
    text: gr.Textbox
    reuse: gr.Button
    begin: gr.Button
    row: gr.Gallery
    failed: gr.HTML
    shown: gr.State
    chosen: gr.State
    seen: gr.State
    timer: gr.Timer

    def boxes(self) -> set[Any]:
        return {getattr(self, field.name) for field in fields(self)}


def make_results(stop: gr.Button) -> Results:
    """Lay out the right side; `stop` is the button next to the one that begins."""
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
    failed = gr.HTML("", visible=False)
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
        failed=failed,
        shown=gr.State([]),
        chosen=gr.State(""),
        seen=gr.State(None),
        timer=gr.Timer(_IDLE),
    )


def wire_results(service: Service, results: Results, page: gr.Blocks) -> None:
    """Check the jobs when the page is opened, and periodically."""

    def look(seen: Any, request: gr.Request) -> Values:
        job, waiting = service.jobs.current(*_KINDS)
        mine = service.jobs.stoppable(user_of(request), *_KINDS)
        current = (job.id, job.state, mine and mine.id) if job else None
        busy = job is not None and job.state in ("queued", "running")
        files = [
            picture.file
            for picture in service.gallery.find(limit=_SHOWN)
            if service.gallery.path(picture.file).is_file()
        ]
        newest = service.jobs.find(kind="draw", limit=1)
        row = _comparison(service, newest[0]) if newest else []
        now = (busy, files, current, [(part.id, part.state) for part in row])
        updates: Values = {results.stage: _stage(job, waiting), results.seen: now}
        if seen is None or seen[2] != current:  # this also enables a pressed button again for the next job
            timer = gr.Timer(_BUSY if busy else _IDLE)
            updates |= {results.timer: timer, results.stop: gr.Button(interactive=mine is not None)}
        if seen is None or seen[:2] != now[:2]:
            updates |= _pictures(service, results, files, busy)
        if seen is None or seen[3] != now[3]:
            updates |= _row(service, results, row)
        return updates

    def stop(request: gr.Request) -> None:
        if job := service.jobs.stoppable(user_of(request), *_KINDS):
            for part in _comparison(service, job) or [job]:
                service.jobs.cancel(part.id)

    def select(shown: list[str], event: gr.SelectData) -> Values:
        file = shown[event.index]
        try:
            text = service.gallery.get(file).parameters
            return {results.chosen: file, results.picture: _large(service, results, file), results.text: text}
        except (RequestError, FileNotFoundError):  # deleted meanwhile
            return {results.chosen: gr.skip()}

    results.stop.click(None, None, results.stop, js=GREY, **AT_ONCE)
    results.stop.click(stop, None, None, **AT_ONCE)
    results.gallery.select(select, results.shown, [results.chosen, results.picture, results.text], **CHOOSING)
    gr.on([page.load, results.timer.tick], look, results.seen, [*results.boxes()], **AT_ONCE)


def _stage(job: Job | None, waiting: int) -> str:
    prompt = str(job.request.get("prompt", "")) if job and isinstance(job.request, dict) else ""
    return job_stage(job, waiting, prompt)


def _pictures(service: Service, results: Results, files: list[str], busy: bool) -> Values:
    """Updates for the strip of the newest pictures and, unless one is being drawn, for the large picture.

    Gradio serves exact copies of the files; browsers have no access to the folder itself.
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


def _comparison(service: Service, job: Job) -> list[Job]:
    """All jobs of the comparison that this job belongs to, in order; an empty list if it belongs to none."""

    def name(job: Job) -> str:
        return job.request.get("comparison", {}).get("name", "")

    if not name(job):
        return []
    return [other for other in reversed(service.jobs.find(kind="draw", limit=_LONGEST)) if name(other) == name(job)]


def _row(service: Service, results: Results, jobs: list[Job]) -> Values:
    """Updates that show the finished pictures of a comparison, and why others failed."""
    done, failed = [], ""
    for job in jobs:
        label = job.request["comparison"]["label"]
        if job.state == "failed":
            failed += f'<p class="trouble" role="alert">{html.escape(f"{label}: failed: {job.reason}")}</p>'
        for picture in (job.result or {}).get("pictures", ()):
            try:
                path = service.gallery.path(picture["file"])
                done.append((save_file_to_cache(path, results.row.GRADIO_CACHE), label))
            except (RequestError, FileNotFoundError):  # deleted meanwhile
                continue
    return {
        results.row: gr.Gallery(done, visible=bool(done), columns=min(max(len(jobs), 1), 4)),
        results.failed: gr.HTML(failed, visible=bool(failed)),
    }

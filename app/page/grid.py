"""The tab of grids: up to three settings of one prompt are swept, with every combination on one sheet."""

from __future__ import annotations

import html
from contextlib import suppress
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from pydantic import ValidationError

from lorablend.adapters.errors import LorablendError, RequestError
from lorablend.app.jobs.jobs import Job
from lorablend.app.library.shelf import Shelf
from lorablend.app.orders.draw import Draw
from lorablend.app.orders.grid import DrawGrid
from lorablend.app.page.client import client_of, user_of
from lorablend.app.page.create import Create, Taken
from lorablend.app.page.form import Values
from lorablend.app.page.grid_boxes import (
    IDLE,
    NOTHING,
    GridBoxes,
    asked_of,
    choices,
    example,
    fillable,
    filled,
    make_boxes,
)
from lorablend.app.page.say import AT_ONCE, CHANGING, CHOOSING, GREY, HIDDEN, saying
from lorablend.app.page.stage import job_stage, text_stage
from lorablend.app.service import Service

__all__ = ["make_grid"]

_BUSY = 0.4  # seconds between two checks of the jobs while one is running
_SHOWN = 12  # sheets


def make_grid(service: Service, shelf: Shelf, create: Create, page: gr.Blocks, tab: gr.Tab) -> None:
    """Lay out the tab and wire it."""
    boxes = make_boxes(service, shelf)
    create.take_with(boxes.take, boxes.taken)

    def take(taken: Taken | None) -> Values:
        return filled(service, boxes, taken.draw) if taken else {boxes.others: gr.skip()}

    def load() -> Values:
        """Show the latest grid, so that other tabs and reloads have it too."""
        for job in service.jobs.find(kind="grid", limit=1):
            try:
                grid = DrawGrid.model_validate(job.request)
            except ValidationError:  # from another version
                break
            updates = filled(service, boxes, Draw.model_validate(grid.model_dump(exclude={"axes"})))
            for box, value, text in zip(boxes.what, boxes.values, grid.axes, strict=False):
                name, _, values = text.rpartition("=") if text.startswith("weight:") else text.partition("=")
                sweeps = choices(shelf, box is boxes.what[0])
                if name in dict(sweeps).values():  # else an adapter that was removed
                    updates |= {box: gr.Dropdown(sweeps, value=name), value: values}
            return updates
        return {boxes.others: gr.skip()}

    def open_tab() -> Values:
        return {box: gr.Dropdown(choices(shelf, box is boxes.what[0])) for box in boxes.what} | {
            boxes.timer: gr.Timer(IDLE, active=True)
        }

    def begin(values: Values, request: gr.Request) -> Values:
        with saying(service):
            service.grids.submit(asked_of(boxes, values), client_of(request))
        return {boxes.timer: gr.Timer(_BUSY, active=True), boxes.stop: gr.Button(interactive=True), boxes.seen: None}

    def stop(request: gr.Request) -> None:
        if job := service.jobs.stoppable(user_of(request), "grid"):
            service.jobs.cancel(job.id)

    def size(values: Values) -> str:
        return _size(service, boxes, values)

    def hint(what: str) -> gr.Textbox:
        return gr.Textbox(placeholder=example(what), interactive=True)

    def look(seen: Any, request: gr.Request) -> Values:
        job, _ = service.jobs.current("grid")
        mine = service.jobs.stoppable(user_of(request), "grid")
        current = (job.id, job.state, mine and mine.id) if job else None
        busy = job is not None and job.state in ("queued", "running")
        files = service.grids.sheets(_SHOWN)
        updates: Values = {boxes.stage: _stage(service, job), boxes.seen: (current, files)}
        if seen is None or seen[0] != current:  # this also enables a pressed button again for the next grid
            timer = gr.Timer(_BUSY if busy else IDLE, active=True)
            updates |= {boxes.timer: timer, boxes.stop: gr.Button(interactive=mine is not None)}
        if seen is None or seen[1] != files:
            copies: list[tuple[str, str]] = []
            for file in files:
                with suppress(RequestError, FileNotFoundError):  # deleted meanwhile
                    copies.append((_copy(service, boxes, file), file))
            there = [file for _, file in copies]
            first = gr.Image(copies[0][0] if copies else None, visible=bool(copies))
            updates |= {boxes.sheet: first, boxes.files: there, boxes.chosen: there[0] if there else ""}
            updates |= {boxes.delete: gr.Button(visible=bool(copies)), boxes.sure: gr.Row(visible=False)}
            updates[boxes.old] = gr.Gallery(copies, selected_index=None, visible=len(copies) > 1)
        return updates

    def select(files: list[str], event: gr.SelectData) -> Values:
        file = files[event.index]
        with saying(service):
            return {boxes.sheet: _copy(service, boxes, file), boxes.chosen: file, boxes.sure: gr.Row(visible=False)}

    def delete(file: str, request: gr.Request) -> Values:
        with saying(service):
            service.grids.delete(file)
        return look(None, request)

    boxes.taken.change(take, boxes.taken, fillable(boxes), **CHANGING)
    page.load(load, None, [*fillable(boxes), *boxes.what, *boxes.values], **CHANGING)
    tab.select(open_tab, None, [*boxes.what, boxes.timer], **CHANGING)
    for what, values in zip(boxes.what, boxes.values, strict=True):
        what.input(hint, what, values, **CHOOSING)
    counted = [*boxes.what, *boxes.values, boxes.steps, boxes.guidance, boxes.width, boxes.height, boxes.base]
    gr.on([box.change for box in counted], size, boxes.asked(), boxes.size, trigger_mode="always_last", **AT_ONCE)
    submits = [boxes.begin.click, *(box.submit for box in boxes.values)]
    gr.on(submits, begin, boxes.asked(), [boxes.timer, boxes.stop, boxes.seen], **CHANGING)
    boxes.stop.click(None, None, boxes.stop, js=GREY, **AT_ONCE)
    boxes.stop.click(stop, None, None, **AT_ONCE)
    shown = [boxes.stage, boxes.seen, boxes.timer, boxes.stop, boxes.sheet, boxes.old, boxes.files]
    shown += [boxes.chosen, boxes.delete, boxes.sure]
    gr.on([tab.select, boxes.timer.tick], look, boxes.seen, shown, **AT_ONCE)
    boxes.old.select(select, boxes.files, [boxes.sheet, boxes.chosen, boxes.sure], **CHOOSING)
    boxes.delete.click(lambda: gr.Row(visible=True), None, boxes.sure, **AT_ONCE)
    boxes.keep.click(None, None, boxes.sure, js=HIDDEN, **AT_ONCE)
    boxes.really.click(delete, boxes.chosen, shown, **CHANGING)


def _size(service: Service, boxes: GridBoxes, values: Values) -> str:
    """The number of pictures and the time that they take, or what is wrong, as HTML."""
    if not (values[boxes.values[0]] or "").strip():
        return '<p class="empty">Give values for the columns; rows and tables are optional.</p>'
    try:
        grid = asked_of(boxes, values)
        count, seconds = service.grids.estimate(grid)
        counts = [len(axis.values) for axis in service.grids.axes(grid)]
    except ValidationError as error:
        first = error.errors()[0]
        return f'<p class="trouble">{html.escape(".".join(map(str, first["loc"])))}: {html.escape(first["msg"])}</p>'
    except LorablendError as error:
        return f'<p class="trouble">{html.escape(service.public(str(error)))}</p>'
    product = f" ({' × '.join(map(str, counts))})" if len(counts) > 1 else ""
    about = f", about {_duration(seconds)}" if seconds else ""
    return f"<p>{count} picture{'' if count == 1 else 's'}{product}{about}</p>"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def _stage(service: Service, job: Job | None) -> str:
    if job is None:
        return text_stage(NOTHING)
    return job_stage(job, 0, str(job.request.get("prompt", "")))


def _copy(service: Service, boxes: GridBoxes, file: str) -> str:
    """An exact copy that Gradio may serve."""
    return save_file_to_cache(service.grids.sheet(file), boxes.sheet.GRADIO_CACHE)

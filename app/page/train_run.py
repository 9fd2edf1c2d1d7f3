"""A training on the page: check, start, stop and resume it; its loss curve, its samples and its adapter."""

from __future__ import annotations

import html
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import gradio as gr

from lorablend.adapters.errors import RequestError
from lorablend.app.jobs.jobs import Job
from lorablend.app.library.shelf import Shelf
from lorablend.app.orders.train import Train
from lorablend.app.page.board import told
from lorablend.app.page.client import client_of, user_of
from lorablend.app.page.create import Create
from lorablend.app.page.form import Values
from lorablend.app.page.say import AT_ONCE, CHANGING, GREY, HIDDEN, saying
from lorablend.app.page.stage import text_stage
from lorablend.app.page.train_form import TrainForm
from lorablend.app.service import Service
from lorablend.app.work.training import Loss

__all__ = ["make_train_run"]

_BUSY, _IDLE = 1.0, 4.0  # seconds between two looks at the jobs
_SHEETS = 12  # of samples that are shown
_CHECKING = '<p class="empty" role="status">checking; the first check takes some seconds …</p>'


@dataclass(frozen=True, kw_only=True)
class _Boxes:
    """The components.

    Attributes:
        seen: The state that was last sent, so that nothing is sent twice.
        old: The names of all trainings.
        sure: The question before a training is removed, answered by `really` or `keep`.
    """

    message: gr.HTML
    stage: gr.HTML
    start: gr.Button
    stop: gr.Button
    resume: gr.Button
    plot: gr.LinePlot
    samples: gr.HTML
    use: gr.Button
    old: gr.Dropdown
    remove: gr.Button
    sure: gr.Row
    question: gr.HTML
    really: gr.Button
    keep: gr.Button
    seen: gr.State
    timer: gr.Timer

    def looked_at(self) -> list[Any]:
        names = ("stage", "stop", "resume", "plot", "samples", "use", "old", "seen", "timer")
        return [getattr(self, name) for name in names]


def make_train_run(
    service: Service, shelf: Shelf, create: Create, form: TrainForm, name: gr.Dropdown, page: gr.Blocks
) -> None:
    """Lay it out and wire it; `name` is the box with the data set's name."""
    with gr.Row(elem_classes="actions"):
        check = gr.Button("Check", size="sm", min_width=80)
        start = gr.Button("Start training", variant="primary", size="sm", min_width=130)
        stop = gr.Button("Stop", variant="stop", size="sm", min_width=80, interactive=False, elem_id="train-stop")
        resume = gr.Button("Resume", size="sm", min_width=90, visible=False)
    message = gr.HTML("", elem_id="train-said")
    stage = gr.HTML("", elem_id="train-stage")
    use = gr.Button("Put it on the pedal board", size="sm", variant="primary", visible=False, min_width=180)
    plot = gr.LinePlot(
        x="step",
        y="loss",
        color="curve",
        color_map={"each step": "#a5b4fc", "smoothed": "#4f46e5"},
        label="Loss (light: each step, dark: smoothed)",
        x_title="Step",
        y_title="Loss",
        colors_in_legend=[],
        height=260,
        visible=False,
        buttons=[],
        elem_id="losses",
    )
    samples = gr.HTML("", elem_id="samples")
    with gr.Accordion("All trainings", open=False):
        with gr.Row(elem_classes="end"):
            old = gr.Dropdown(service.training.names(), value=None, label="Training", min_width=140, interactive=True)
            remove = gr.Button("Remove this training", size="sm", scale=0, min_width=170)
        with gr.Row(visible=False, elem_classes="sure") as sure:
            question = gr.HTML("")
            really = gr.Button("Remove the training for good", variant="stop", size="sm", min_width=130)
            keep = gr.Button("Keep the training", size="sm", min_width=80)
    boxes = _Boxes(
        message=message,
        stage=stage,
        start=start,
        stop=stop,
        resume=resume,
        plot=plot,
        samples=samples,
        use=use,
        old=old,
        remove=remove,
        sure=sure,
        question=question,
        really=really,
        keep=keep,
        seen=gr.State(None),
        timer=gr.Timer(_IDLE),
    )
    _wire(service, shelf, create, form, boxes, name, check, page)


def _wire(
    service: Service,
    shelf: Shelf,
    create: Create,
    form: TrainForm,
    boxes: _Boxes,
    name: gr.Dropdown,
    check: gr.Button,
    page: gr.Blocks,
) -> None:
    def ask(values: Values) -> str:
        with saying(service):
            lines = service.training.check(form.train(values, values[name]))
        rows = "".join(f"<li>{html.escape(service.public(line))}</li>" for line in lines)
        return f'<div role="status"><p>Ready to train:</p><ul>{rows}</ul></div>'

    def begin(values: Values, request: gr.Request) -> Values:
        with saying(service):
            service.training.submit(form.train(values, values[name]), client_of(request))
        return {boxes.message: "", boxes.seen: None, boxes.timer: gr.Timer(_BUSY), form.boxes["anew"]: False}

    def go_on(request: gr.Request) -> Values:
        job, _ = service.jobs.current("train")
        with saying(service):
            if job is None:
                raise RequestError("there is no training to resume; start one")
            service.training.submit(Train.model_validate(job.request), client_of(request))
        return {boxes.message: "", boxes.seen: None, boxes.timer: gr.Timer(_BUSY)}

    def stop(request: gr.Request) -> None:
        if job := service.jobs.stoppable(user_of(request), "train"):
            service.jobs.cancel(job.id)

    def put() -> Values:
        job, _ = service.jobs.current("train")
        adapter = job.result["adapter"] if job and job.result else ""
        if shelf.get(adapter) is None:
            raise gr.Error(f"{html.escape(adapter) or 'the adapter'} is not in the library", print_exception=False)
        gr.Info(f"{html.escape(adapter)} is on the board", duration=2)
        return {create.form.board: told(add=adapter), create.add: gr.Dropdown(shelf.names())}

    def ask_to_remove(old: str | None) -> Values:
        with saying(service):
            if old not in service.training.names():
                raise RequestError("no training is chosen; choose one")
            files = "checkpoints, samples and log"
            if service.training.is_kept(old):
                files = "checkpoints, samples, log and the adapter, which did not get into the library"
        text = f"Remove the training {html.escape(old)}: {files}? They cannot be brought back."
        return {boxes.sure: gr.Row(visible=True), boxes.question: f'<p role="alert">{text}</p>'}

    def remove(old: str | None) -> Values:
        with saying(service):
            service.training.remove(old or "")
        names = service.training.names()
        return {boxes.old: gr.Dropdown(names, value=None), boxes.sure: gr.Row(visible=False), boxes.seen: None}

    def look(seen: Any, request: gr.Request) -> Values:
        job, waiting = service.jobs.current("train")
        if job is None:
            return {boxes.stage: text_stage("The curve and the samples of a training appear here."), boxes.seen: seen}
        mine = service.jobs.stoppable(user_of(request), "train")
        return _look(service, boxes, job, waiting, seen, mine)

    def checking() -> str:
        return _CHECKING

    inputs: set[Any] = {*form.boxes.values(), name}
    begun = [boxes.message, boxes.seen, boxes.timer]
    for button in (check, boxes.start, boxes.resume):
        button.click(checking, None, boxes.message, **AT_ONCE)
    check.click(ask, inputs, boxes.message, **CHANGING).failure(_quiet, None, boxes.message, **CHANGING)
    boxes.start.click(begin, inputs, [*begun, form.boxes["anew"]], **CHANGING).failure(
        _quiet, None, boxes.message, **CHANGING
    )
    boxes.resume.click(go_on, None, begun, **CHANGING).failure(_quiet, None, boxes.message, **CHANGING)
    boxes.stop.click(None, None, boxes.stop, js=GREY, **AT_ONCE)
    boxes.stop.click(stop, None, None, **AT_ONCE)
    boxes.use.click(put, None, [create.form.board, create.add], **CHANGING)
    boxes.remove.click(ask_to_remove, boxes.old, [boxes.sure, boxes.question], **CHANGING)
    boxes.old.input(None, None, boxes.sure, js=HIDDEN, **AT_ONCE)
    boxes.keep.click(None, None, boxes.sure, js=HIDDEN, **AT_ONCE)
    boxes.really.click(remove, boxes.old, [boxes.old, boxes.sure, boxes.seen], **CHANGING)
    gr.on([page.load, boxes.timer.tick], look, boxes.seen, boxes.looked_at(), **AT_ONCE)


def _look(service: Service, boxes: _Boxes, job: Job, waiting: int, seen: Any, mine: Job | None) -> Values:
    """Update what has changed since `seen`; `mine` is the job that a press of Stop would stop."""
    busy, name = job.state in ("queued", "running"), str(job.request["name"])
    losses, sheets = service.training.losses(name), service.training.samples(name)
    now = ((job.id, job.state, mine and mine.id), job.id, losses[-1].step if losses else 0, len(sheets))
    updates: Values = {boxes.stage: _stage(job, waiting), boxes.seen: now}
    if seen is None or seen[0] != now[0]:
        resumable = None if busy or job.state == "done" else service.training.resumable(name)
        words = "Resume" if resumable is None else f"Resume after step {resumable}"
        updates |= {
            boxes.timer: gr.Timer(_BUSY if busy else _IDLE),
            boxes.stop: gr.Button(interactive=mine is not None),
            boxes.resume: gr.Button(words, visible=resumable is not None),
            boxes.use: gr.Button(visible=job.state == "done"),
            boxes.old: gr.Dropdown(service.training.names()),
        }
    if seen is None or seen[1:3] != now[1:3]:
        updates[boxes.plot] = _plot(losses)
    if seen is None or (seen[1], seen[3]) != (now[1], now[3]):
        updates[boxes.samples] = _samples(name, [(step, path.name) for step, path in sheets])
    return updates


def _stage(job: Job, waiting: int) -> str:
    name, behind = job.request["name"], f" · {waiting} waiting" if waiting else ""
    if job.state == "failed":
        return text_stage(f"{name} failed: {job.reason}", alarm=True)
    if job.state == "cancelled":
        return text_stage(f"{name} was stopped")
    if job.state == "done":
        result, seconds = job.result, _duration((job.ended or 0) - (job.started or 0))
        words = (
            f"{result['adapter']} is in the library: {result['steps']} steps in {seconds}, loss {result['loss']:.4f}"
        )
        trigger = job.request.get("trigger")
        return text_stage(words + (f"; its trigger word is {trigger}" if trigger else ""))
    progress, value = job.progress, ""
    if job.state == "queued":
        text = "waits for its turn"
    else:
        text = "stopping" if job.stopping else progress.text if progress else "getting ready"
        text += f" · {_duration(time.time() - job.started) if job.started else '0 s'}"
    if progress and progress.steps:
        value = f' value="{progress.step}" max="{progress.steps}"'
        if progress.eta:
            text += f" · about {_duration(progress.eta)} to go"
    line = html.escape(f"{name}: {text}{behind}")
    return (
        f'<div class="stage"><p role="status">{line}</p>'
        f'<progress aria-label="Progress of the training"{value}></progress></div>'
    )


def _plot(losses: list[Loss]) -> gr.LinePlot:
    import pandas as pd

    rows = [(point.step, point.loss, "each step") for point in losses]
    rows += [(point.step, point.smoothed, "smoothed") for point in losses]
    frame = pd.DataFrame(rows, columns=pd.Index(["step", "loss", "curve"]))
    # Hidden, not removed: Gradio reads the width of a removed plot, which is an error in the console.
    return gr.LinePlot(frame, visible=True if len(losses) > 1 else "hidden")


def _samples(name: str, sheets: list[tuple[int, str]]) -> str:
    """Show the newest first; each opens at full size in its own tab."""
    figures = "".join(
        f'<figure><a href="{_address(name, file)}" target="_blank"><img loading="lazy" src="{_address(name, file)}" '
        f'alt="Samples of {html.escape(name)} after step {step}: left without it, right with it"></a>'
        f"<figcaption>after step {step}</figcaption></figure>"
        for step, file in reversed(sheets[-_SHEETS:])
    )
    return f"<h3>Samples: left without the adapter, right with it</h3><div>{figures}</div>" if figures else ""


def _address(name: str, file: str) -> str:
    return f"api/train/runs/{quote(name)}/samples/{file}"


def _duration(seconds: float) -> str:
    whole = round(max(seconds, 0))
    if whole < 120:
        return f"{whole} s"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def _quiet() -> str:
    return ""

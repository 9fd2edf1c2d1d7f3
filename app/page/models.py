"""The tab of models and devices: the models, which one draws, and making new ones."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lorablend.adapters.errors import RequestError
from lorablend.app.jobs.jobs import Job
from lorablend.app.orders.build import Bake, Compress, Convert
from lorablend.app.orders.draw import Draw
from lorablend.app.page.client import client_of, user_of
from lorablend.app.page.create import Create, Taken
from lorablend.app.page.form import Values, known_model, model_box
from lorablend.app.page.models_facts import device_table, disk_text, model_facts, model_table
from lorablend.app.page.say import AT_ONCE, CHANGING, CHOOSING, GREY, HIDDEN, saying
from lorablend.app.page.stage import job_stage, text_stage
from lorablend.app.service import Service
from lorablend.app.work.building import KINDS

__all__ = ["make_models"]

_BUSY, _IDLE = 0.6, 4.0  # seconds between two checks of the jobs
_WEIGHTS = [("8 bits (small, the usual choice)", "int8"), ("16 bits", "fp16"), ("32 bits", "fp32")]
_IDLE_TEXT = "No model is being made."
_NO_CONFIG = ("none", "")
_NO_BOARD = '<p class="empty">Take the board first; the new model will contain its adapters.</p>'


@dataclass(frozen=True, kw_only=True)
class _ModelBoxes:
    """The components of the tab; `taken` has the board to bake, `seen` the result of the last check of the jobs."""

    model: gr.Radio
    facts: gr.HTML
    table: gr.HTML
    old: gr.Dropdown
    remove: gr.Button
    sure: gr.Row
    question: gr.HTML
    really: gr.Button
    keep: gr.Button
    source: gr.Dropdown
    weights: gr.Radio
    config: gr.Dropdown
    name: gr.Textbox
    convert: gr.Button
    small_name: gr.Textbox
    compress: gr.Button
    take: gr.Button
    taken: gr.State
    board: gr.HTML
    bake_name: gr.Textbox
    bake: gr.Button
    stage: gr.HTML
    stop: gr.Button
    seen: gr.State
    timer: gr.Timer


def make_models(service: Service, create: Create, tab: gr.Tab) -> None:
    """Lay out the tab and wire it."""
    boxes = _layout(service)
    create.take_with(boxes.take, boxes.taken)
    form = create.form

    def refresh(model: str) -> Values:
        """Update all lists, because models may be made and removed elsewhere too.

        The choice stays if it is still valid, because this update may arrive after the user chose again. `model` is the
        choice in the tab Create.
        """
        names, chosen = service.models.names, known_model(service, model)
        own = [form["name"] for form in service.building.models() if form["own"]]
        return {
            form.model: gr.Dropdown(names) if chosen == model else model_box(names, chosen),
            boxes.model: gr.Radio(names) if chosen == model else gr.Radio(names, value=chosen),
            boxes.facts: model_facts(service, chosen),
            boxes.table: model_table(service),
            boxes.old: gr.Dropdown(own, value=None),
            boxes.source: gr.Dropdown(service.building.sources.names()),
            boxes.config: gr.Dropdown([_NO_CONFIG, *service.building.sources.names()]),
        }

    def open_tab(model: str) -> Values:
        """Refresh, and choose the same model as the tab Create."""
        return refresh(model) | {boxes.model: gr.Radio(service.models.names, value=known_model(service, model))}

    def switch(name: str) -> Values:
        with saying(service):
            facts = model_facts(service, name)
            width, height = service.models.get(name).model.default_size
        return {boxes.facts: facts, form.model: name, form.width: width, form.height: height}

    def convert(values: Values, request: gr.Request) -> Values:
        with saying(service):
            fields = {key: (values[getattr(boxes, key)] or "").strip() for key in ("source", "name", "weights")}
            order = Convert.model_validate({**fields, "config": values[boxes.config] or None})
            service.building.convert(order, client_of(request))
        return _busy(boxes)

    def compress(values: Values, request: gr.Request) -> Values:
        with saying(service):
            order = Compress(name=(values[boxes.small_name] or "").strip(), model=values[boxes.model])
            service.building.compress(order, client_of(request))
        return _busy(boxes)

    def bake(values: Values, request: gr.Request) -> Values:
        with saying(service):
            taken: Taken | None = values[boxes.taken]
            if taken is None:
                raise RequestError("no board was taken; press the button above")
            name = (values[boxes.bake_name] or "").strip()
            order = Bake(name=name, blend=taken.draw.blend, model=taken.draw.model)
            service.building.bake(order, client_of(request))
        return _busy(boxes)

    def ask(name: str | None) -> Values:
        with saying(service):
            models = service.building.models()
            model = next((form for form in models if form["name"] == name and form["own"]), None)
            if model is None:
                raise RequestError("no model is chosen; choose one that was made here")
        text = f"Remove {html.escape(model['name'])} and free {disk_text(model['size'])}? It cannot be brought back."
        return {boxes.sure: gr.Row(visible=True), boxes.question: f'<p role="alert">{text}</p>'}

    def remove(name: str | None, model: str) -> Values:
        with saying(service):
            service.building.remove(name or "")
        return {boxes.sure: gr.Row(visible=False)} | refresh(model)

    def stop(request: gr.Request) -> None:
        if job := service.jobs.stoppable(user_of(request), *KINDS):
            service.jobs.cancel(job.id)

    def look(seen: Any, model: str, request: gr.Request) -> Values:
        job, _ = service.jobs.current(*KINDS)
        mine = service.jobs.stoppable(user_of(request), *KINDS)
        current = (job.id, job.state, mine and mine.id) if job else None
        busy = job is not None and job.state in ("queued", "running")
        now = (current, service.models.names)
        updates: Values = {boxes.stage: _stage(service, job), boxes.seen: now}
        if seen is None or seen[0] != current:  # this also enables a pressed button again for the next job
            timer = gr.Timer(_BUSY if busy else _IDLE, active=True)
            updates |= {boxes.timer: timer, boxes.stop: gr.Button(interactive=mine is not None)}
        return updates | (refresh(model) if seen is None or seen[1] != now[1] else {})

    lists = [boxes.model, boxes.facts, boxes.table, boxes.old, boxes.source, boxes.config, form.model]
    begun = [boxes.timer, boxes.stop, boxes.seen]
    tab.select(open_tab, form.model, lists, **CHANGING)
    boxes.model.input(switch, boxes.model, [boxes.facts, form.model, form.width, form.height], **CHOOSING)
    inputs = {boxes.source, boxes.name, boxes.weights, boxes.config}
    gr.on([boxes.convert.click, boxes.name.submit], convert, inputs, begun, **CHANGING)
    inputs = {boxes.small_name, boxes.model}
    gr.on([boxes.compress.click, boxes.small_name.submit], compress, inputs, begun, **CHANGING)
    gr.on([boxes.bake.click, boxes.bake_name.submit], bake, {boxes.taken, boxes.bake_name}, begun, **CHANGING)
    boxes.taken.change(_board, boxes.taken, boxes.board, **CHANGING)
    boxes.source.change(_config_box, boxes.source, boxes.config, **AT_ONCE)
    boxes.remove.click(ask, boxes.old, [boxes.sure, boxes.question], **CHANGING)
    boxes.keep.click(None, None, boxes.sure, js=HIDDEN, **AT_ONCE)
    boxes.really.click(remove, [boxes.old, form.model], [boxes.sure, *lists], **CHANGING)
    boxes.stop.click(None, None, boxes.stop, js=GREY, **AT_ONCE)
    boxes.stop.click(stop, None, None, **AT_ONCE)
    watched = [boxes.stage, boxes.seen, boxes.timer, boxes.stop, *lists]
    gr.on([tab.select, boxes.timer.tick], look, [boxes.seen, form.model], watched, **AT_ONCE)


def _layout(service: Service) -> _ModelBoxes:
    names = service.models.names
    made: dict[str, Any] = {"taken": gr.State(None), "seen": gr.State(None), "timer": gr.Timer(_IDLE, active=False)}
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=280):
            gr.HTML("<h2>Model</h2>")
            made["model"] = gr.Radio(names, value=names[0], label="Draw with")
            made["facts"] = gr.HTML(model_facts(service, names[0]))
            made["table"] = gr.HTML(model_table(service), elem_id="models")
            with gr.Row(elem_classes="end"):
                made["old"] = gr.Dropdown([], value=None, label="Remove a model made here", min_width=160, scale=3)
                made["remove"] = gr.Button("Remove", size="sm", min_width=80, scale=1)
            with gr.Row(visible=False, elem_classes="sure") as sure:
                made["question"] = gr.HTML("")
                made["really"] = gr.Button("Remove it for good", variant="stop", size="sm", min_width=130)
                made["keep"] = gr.Button("Keep it", size="sm", min_width=80)
            made["sure"] = sure
            gr.HTML(f"<h2>Devices</h2>{device_table(service)}")
        with gr.Column(scale=6, min_width=280):
            gr.HTML("<h2>In progress</h2>")
            made["stage"] = gr.HTML(text_stage(_IDLE_TEXT), elem_id="model-stage")
            with gr.Row(elem_classes="actions"):
                made["stop"] = gr.Button("Stop", variant="stop", size="sm", interactive=False, scale=0, min_width=130)
            gr.HTML("<h2>Convert a model</h2>")
            made["source"] = gr.Dropdown(
                service.building.sources.names(),
                value=None,
                allow_custom_value=True,
                label="Hugging Face id (owner/name), or a name in the folder sources",
            )
            made["config"] = gr.Dropdown(
                [_NO_CONFIG], value="", label="Configuration of the checkpoint (a diffusers folder)", visible=False
            )
            made["weights"] = gr.Radio(_WEIGHTS, value="int8", label="Weights")
            with gr.Row(elem_classes="end"):
                made["name"] = gr.Textbox(label="Name of the new model", max_length=180, min_width=160, scale=3)
                made["convert"] = gr.Button("Convert", size="sm", min_width=90, scale=1)
            gr.HTML("<h2>Compress the chosen model to 8 bits</h2>")
            with gr.Row(elem_classes="end"):
                made["small_name"] = gr.Textbox(
                    label="Name of the smaller model", max_length=180, min_width=160, scale=3
                )
                made["compress"] = gr.Button("Compress", size="sm", min_width=90, scale=1)
            gr.HTML("<h2>Bake the board into a model</h2>")
            with gr.Row(elem_classes="actions"):
                made["take"] = gr.Button("Take the board from Create", size="sm", scale=0, min_width=200)
            made["board"] = gr.HTML(_NO_BOARD)
            with gr.Row(elem_classes="end"):
                made["bake_name"] = gr.Textbox(label="Name of the baked model", max_length=180, min_width=160, scale=3)
                made["bake"] = gr.Button("Bake", size="sm", min_width=90, scale=1)
    return _ModelBoxes(**made)


def _busy(boxes: _ModelBoxes) -> Values:
    return {boxes.timer: gr.Timer(_BUSY, active=True), boxes.stop: gr.Button(interactive=True), boxes.seen: None}


def _config_box(source: str | None) -> gr.Dropdown:
    return gr.Dropdown(visible=(source or "").endswith(".safetensors"))


def _board(taken: Taken | None) -> str:
    if taken is None:
        return _NO_BOARD
    draw: Draw = taken.draw
    items = draw.blend.get("items", []) if isinstance(draw.blend, dict) else draw.blend
    if not items:
        return '<p class="trouble">The board is empty; add an adapter to it in the tab Create.</p>'
    words = ", ".join(f"{item['adapter']} {item.get('weight', 1):g}" for item in items)
    return f"<p>{html.escape(words)}</p>"


def _stage(service: Service, job: Job | None) -> str:
    if job is None:
        return text_stage(_IDLE_TEXT)
    name = str(job.request["name"])
    if job.state == "done":
        return text_stage(f"{name} is ready" if name in service.models.names else f"{name} was made, and removed later")
    return job_stage(job, 0, name)

"""The tab where pictures are made: prompt, board and settings, the running drawing, and the newest pictures."""

from __future__ import annotations

import html
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import gradio as gr

from lorablend.adapters.errors import LorablendError
from lorablend.app.library.shelf import Shelf
from lorablend.app.orders.draw import Draw
from lorablend.app.orders.reuse import ReusedDrawing
from lorablend.app.page.board import ADAPTER_CHOSEN, MODEL_CHOSEN, make_board, told
from lorablend.app.page.client import client_of
from lorablend.app.page.compare import compare
from lorablend.app.page.complete import make_completion
from lorablend.app.page.form import (
    Form,
    Start,
    Values,
    known_model,
    make_settings,
    new_seed,
    preset_boxes,
    preset_updates,
)
from lorablend.app.page.pedal import read_board, style_of, written_board
from lorablend.app.page.results import Results, make_results, wire_results
from lorablend.app.page.say import AT_ONCE, CHANGING, saying
from lorablend.app.page.start import StartBoxes, kept_mask, make_start
from lorablend.app.page.styles import Styles
from lorablend.app.page.tokens import TokenCounter
from lorablend.app.pictures.showcase import read_showcase
from lorablend.app.reuse import reuse
from lorablend.app.service import Service
from lorablend.shipped import adapters_dir, model_dir

__all__ = ["Create", "Taken", "first_prompt", "make_create"]

# Without preprocessing, because Gradio rejects numbers that are still being typed, such as 2 on the way to 256.
_REMEMBERING: dict[str, Any] = {"trigger_mode": "always_last", "preprocess": False, **AT_ONCE}


@dataclass(frozen=True, kw_only=True)
class Create:
    """The parts of this tab that other tabs need.

    Attributes:
        service: What draws.
        form: The boxes of a drawing.
        results: The right side of the tab.
        note: Shows what a reused picture needs that is missing here.
        add: The list of adapters to put on the board.
        tag: The list of adapters whose tag to write into the prompt.
    """

    service: Service
    form: Form
    results: Results
    note: gr.HTML
    add: gr.Dropdown
    tag: gr.Dropdown

    def outputs(self) -> list[Any]:
        """The components that `filled` updates."""
        return [*self.form.boxes(), self.note]

    def take_with(self, button: gr.Button, taken: gr.State) -> None:
        """Let a button of another tab put the drawing in the form into a State, as a `Taken`."""

        def take(values: Values) -> Taken:
            with saying(self.service):
                return Taken(self.form.draw(values))

        button.click(take, self.form.boxes(), taken, **CHANGING)

    def filled(self, reused: ReusedDrawing) -> Values:
        """Updates that fill the form with the settings of a picture."""
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in reused.missing)
        note = f'<p>Differences from the original:</p><ul role="alert">{lines}</ul>' if lines else ""
        return self.form.filled(reused.draw, self.service.models.names) | {self.note: note}


@dataclass(frozen=True, eq=False)
class Taken:
    """The drawing in the form when a button was pressed. No two are equal, so that each one changes its State.

    Gradio hashes what a State holds, and the lists in a `Draw` have no hash.
    """

    draw: Draw


@dataclass(frozen=True, kw_only=True)
class _Controls:
    """The other controls of this tab; `last` and `last_board` are what this browser remembers."""

    begin: gr.Button
    compare: gr.Button
    tokens: gr.HTML
    preset: gr.Dropdown
    dice: gr.Button
    last_seed: gr.Button
    start: StartBoxes
    style: gr.Dropdown
    style_name: gr.Textbox
    save: gr.Button
    delete: gr.Button
    last: gr.BrowserState
    last_board: gr.BrowserState


def make_create(service: Service, shelf: Shelf, page: gr.Blocks) -> Create:
    """Lay out the tab and wire it."""
    styles = Styles(service.data / "styles")
    # The values stay in this browser, so the secret need not be one. There are two states, because what is typed into a
    # pedal may make no sense yet when another box changes, which is to be remembered all the same.
    last = gr.BrowserState(None, storage_key="lorablend", secret="lorablend")
    last_board = gr.BrowserState(None, storage_key="lorablend board", secret="lorablend")
    with gr.Row(elem_id="columns", equal_height=False):
        with gr.Column(elem_id="compose", min_width=280):
            prompt = gr.Textbox(first_prompt(service), label="Prompt", lines=3, max_lines=12, elem_id="prompt")
            make_completion(shelf)
            tokens = gr.HTML("", elem_id="tokens")
            negative = gr.Textbox(label="Negative prompt", lines=1, max_lines=6)
            with gr.Row(elem_classes="actions", elem_id="actions"):
                begin = gr.Button("Draw", variant="primary", scale=3, min_width=120)
                stop = gr.Button("Stop", variant="stop", interactive=False, scale=1, min_width=80)
                compare_button = gr.Button("Compare", scale=1, min_width=90)
            note = gr.HTML("", elem_id="note")
        with gr.Column(elem_id="results", min_width=280):
            results = make_results(stop)
        with gr.Column(elem_id="knobs", min_width=280):
            start, empty = gr.State(Start()), gr.State(False)
            gr.HTML("<h2>Pedal board</h2>")
            board = make_board(service, shelf)
            names = shelf.names()
            with gr.Row():
                add = gr.Dropdown(names, value=None, label="Add an adapter", min_width=140)
                tag = gr.Dropdown(names, value=None, label="Add a tag to the prompt", min_width=140)
            with gr.Accordion("Styles (saved boards)", open=False):
                style = gr.Dropdown(styles.names(), value=None, label="Load a style")
                with gr.Row(elem_classes="end"):
                    style_name = gr.Textbox(label="Name", max_length=60, min_width=120, scale=3)
                    save = gr.Button("Save", size="sm", min_width=70, scale=1)
                    delete = gr.Button("Delete", size="sm", min_width=70, scale=1)
            gr.HTML("<h2>Settings</h2>")
            settings = make_settings(service)
            start_boxes = make_start(service, start, settings["settings"])
    dice, last_seed, preset = settings.pop("dice"), settings.pop("last"), settings.pop("preset")
    form = Form(prompt=prompt, negative=negative, board=board, start=start, empty=empty, **settings)
    controls = _Controls(
        begin=begin,
        compare=compare_button,
        tokens=tokens,
        preset=preset,
        dice=dice,
        last_seed=last_seed,
        start=start_boxes,
        style=style,
        style_name=style_name,
        save=save,
        delete=delete,
        last=last,
        last_board=last_board,
    )
    create = Create(service=service, form=form, results=results, note=note, add=add, tag=tag)
    wire_results(service, results, page)
    _wire_drawing(create, controls)
    _wire_board(create, controls, styles)
    _wire_form(create, controls, page)
    _wire_pictures(create, controls, shelf)

    def load(fields: dict[str, Any] | None, items: list[Any] | None) -> Values:
        """Restore the form as this browser left it, and refresh the lists."""
        updates: Values = {add: gr.Dropdown(shelf.names()), tag: gr.Dropdown(shelf.names()), form.board: []}
        updates |= {style: gr.Dropdown(styles.names()), form.model: gr.Dropdown(service.models.names)}
        if fields is None and items is None:
            return updates
        with suppress(ValueError, TypeError):  # from another version
            fields = {"prompt": first_prompt(service)} if fields is None else fields
            blend = fields.get("blend", {}) | ({} if items is None else {"items": items})
            updates |= form.filled(Draw.model_validate(fields | {"blend": blend}), service.models.names)
        return updates

    page.load(load, [last, last_board], [*form.boxes(), add, tag, style], **CHANGING)
    return create


def _wire_drawing(create: Create, controls: _Controls) -> None:
    """Wire the buttons that draw."""
    service, form, results = create.service, create.form, create.results

    # Not "draw", under which name Gradio would have it in place of the endpoint for programs (see tools.py).
    def draw_form(values: Values, request: gr.Request) -> Values:
        with saying(service):
            service.draw(form.draw(values), client=client_of(request))
        return {
            results.timer: gr.Timer(0.4),
            results.seen: None,
            results.stop: gr.Button(interactive=True),
            create.note: "",
        }

    def draw_compared(values: Values, request: gr.Request) -> Values:
        with saying(service):
            compare(service, form.draw(values), client_of(request))
        return {results.timer: gr.Timer(0.4), results.seen: None}

    begun = [results.timer, results.seen, results.stop, create.note]
    gr.on([controls.begin.click, form.prompt.submit], draw_form, form.boxes(), begun, **CHANGING)
    controls.compare.click(draw_compared, form.boxes(), [results.timer, results.seen], **CHANGING)


def _wire_board(create: Create, controls: _Controls, styles: Styles) -> None:
    """Wire the board, and the styles."""
    service, form = create.service, create.form

    def remember(board: Any) -> Any:
        return _or_skip(lambda: style_of(read_board(board), "sum", 1)["items"])

    def take_mask(value: dict[str, Any] | None, event: gr.EventData) -> gr.HTML:
        with saying(service):
            return told(mask=kept_mask(service, value), question=event.question)

    def load_style(name: str | None) -> Values:
        if not name:
            return {form.board: gr.skip()}
        with saying(service):
            blend = styles.load(name)
        return {
            form.board: written_board(blend),
            form.mode: blend.get("mode", "sum"),
            form.switch_steps: blend.get("switch_steps", 1),
            controls.style_name: name,
            controls.style: None,
        }

    def save(values: Values) -> Any:
        with saying(service):
            blend = style_of(read_board(values[form.board]), values[form.mode], int(values[form.switch_steps]))
            styles.save(values[controls.style_name], blend)
        gr.Info("Saved", duration=2)
        return gr.Dropdown(styles.names())

    def delete(name: str) -> Values:
        with saying(service):
            styles.delete(name)
        return {controls.style: gr.Dropdown(styles.names()), controls.style_name: ""}

    # In the browser alone, where the board is.
    create.add.change(None, create.add, create.add, js=ADAPTER_CHOSEN)
    form.model.change(None, form.model, None, js=MODEL_CHOSEN)
    form.board.change(remember, form.board, controls.last_board, **_REMEMBERING)
    form.board.mask(take_mask, controls.start.editor, form.board, trigger_mode="multiple", **CHANGING)
    styled = [form.board, form.mode, form.switch_steps, controls.style_name, controls.style]
    controls.style.change(load_style, controls.style, styled, **CHANGING)
    saved = {form.board, form.mode, form.switch_steps, controls.style_name}
    controls.save.click(save, saved, controls.style, **CHANGING)
    controls.delete.click(delete, controls.style_name, [controls.style, controls.style_name], **CHANGING)


def _wire_form(create: Create, controls: _Controls, page: gr.Blocks) -> None:
    """Wire the other boxes."""
    service, form = create.service, create.form

    @cache
    def counter(model: str) -> TokenCounter:
        return TokenCounter(service.models.get(model).model)

    def count(prompt: str, model: str) -> str:
        return html.escape(counter(known_model(service, model)).line(prompt or ""))

    def remember(values: Values) -> Any:
        return _or_skip(lambda: form.draw(values | {form.board: []}).model_dump(exclude_defaults=True))

    def take_last() -> str:
        pictures = service.gallery.find(limit=1)
        return "" if not pictures or pictures[0].seed is None else str(pictures[0].seed)

    # Lists use `change`: Gradio's `select` ignores the keyboard, and `input` also fires when a list loses the focus.
    def take_preset(name: str) -> Values:
        return preset_updates(form, name) | {controls.preset: None} if name else {controls.preset: gr.skip()}

    def take_tag(prompt: str, name: str | None) -> Values:
        if not name:
            return {create.tag: gr.skip()}
        return {form.prompt: f"{prompt} <lora:{name}:1>".lstrip(), create.tag: None}

    counted = [page.load, form.prompt.change]
    gr.on(counted, count, [form.prompt, form.model], controls.tokens, trigger_mode="always_last", **AT_ONCE)
    form.negative.change(lambda text, empty: empty and not text, [form.negative, form.empty], form.empty, **AT_ONCE)
    others = form.boxes() - {form.board}
    gr.on([box.change for box in others], remember, others, controls.last, **_REMEMBERING)
    controls.dice.click(new_seed, None, form.seed, **AT_ONCE)
    controls.last_seed.click(take_last, None, form.seed, **AT_ONCE)
    boxes = [*preset_boxes(form), controls.preset]
    controls.preset.change(take_preset, controls.preset, boxes, **AT_ONCE)
    create.tag.change(take_tag, [form.prompt, create.tag], [form.prompt, create.tag], **AT_ONCE)


def _wire_pictures(create: Create, controls: _Controls, shelf: Shelf) -> None:
    """Wire the buttons below the newest pictures."""
    service, start_boxes = create.service, controls.start

    def use(file: str) -> Values:
        with saying(service):
            return create.filled(reuse(service, shelf, file))

    def begin(file: str) -> Values:
        with saying(service):
            image = service.uploads.keep(service.gallery.path(file).read_bytes())
            return start_boxes.begun(service, Start(image=image))

    create.results.reuse.click(use, create.results.chosen, create.outputs(), **CHANGING)
    begun = [start_boxes.start, start_boxes.width, start_boxes.height]
    create.results.begin.click(begin, create.results.chosen, begun, **CHANGING)


def _or_skip(read: Callable[[], Any]) -> Any:
    """What the browser should remember; no update if the boxes are invalid, such as during typing."""
    try:
        return read()
    except (LorablendError, ValueError, TypeError):
        return gr.skip()


def first_prompt(service: Service) -> str:
    """For the demo, the prompt that its adapters are shown with, so that one click draws a picture; else ""."""
    if service.models.folder().resolve() != model_dir():
        return ""
    return read_showcase(adapters_dir() / "showcase.json").prompt

"""The tab where pictures are made: prompt, board, settings; what is drawn, and the newest pictures."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import gradio as gr

from lorablend.adapters.errors import LorablendError
from lorablend.app.library.shelf import Shelf
from lorablend.app.orders.draw import Draw
from lorablend.app.page.board import FOCUS_FOLLOWS, Card, make_card, trouble_of
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
from lorablend.app.page.pedal import Board, Pedal, board_of, moved, style_of
from lorablend.app.page.results import Results, make_results, wire_results
from lorablend.app.page.reuse import ReusedDrawing, reuse
from lorablend.app.page.say import AT_ONCE, CHANGING, saying
from lorablend.app.page.start import StartBoxes, kept_mask, make_start
from lorablend.app.page.styles import Styles
from lorablend.app.page.tokens import TokenCounter
from lorablend.app.pictures.showcase import read_showcase
from lorablend.app.service import Service
from lorablend.shipped import adapters_dir, model_dir

__all__ = ["Create", "Taken", "first_prompt", "make_create"]

# The numbers as they are, for Gradio refuses those that are half written: 2 on the way to 256.
_REMEMBERING: dict[str, Any] = {"trigger_mode": "always_last", "preprocess": False, **AT_ONCE}


@dataclass(frozen=True, kw_only=True)
class Create:
    """What other tabs need of this one. note: where it says what of a picture is missing here.

    takers: buttons of other tabs, each with the State that it fills with what the form says; see `Taken`.
    """

    service: Service
    form: Form
    results: Results
    note: gr.HTML
    add: gr.Dropdown
    tag: gr.Dropdown
    takers: list[tuple[gr.Button, gr.State]]

    def outputs(self) -> list[Any]:
        """The components of `filled`."""
        return [*self.form.boxes(), self.note]

    def filled(self, found: ReusedDrawing) -> Values:
        """The form as a picture says."""
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in found.missing)
        said = f'<p>Not quite the same here:</p><ul role="alert">{lines}</ul>' if lines else ""
        return self.form.filled(found.draw, self.service.models.names) | {self.note: said}


@dataclass(frozen=True, eq=False)
class Taken:
    """What the form said when a button was pressed. No two are equal, so that each is a change of its State."""

    draw: Draw


@dataclass(frozen=True, eq=False)
class _Added:
    """An adapter that was chosen for the board; no two are equal, as with `Taken`."""

    name: str


@dataclass(frozen=True, kw_only=True)
class _Buttons:
    """Those of the left side. added: what was chosen in `add` last.

    It stands between the list, which is emptied at once, and the board, whose listeners are made anew with it: a list
    that is emptied is a change too, which would reach the new listener with what the old one read.
    """

    begin: gr.Button
    compare: gr.Button
    add: gr.Dropdown
    added: gr.State
    tag: gr.Dropdown
    style: gr.Dropdown
    style_name: gr.Textbox
    save: gr.Button
    delete: gr.Button
    last: gr.BrowserState
    last_board: gr.BrowserState


def make_create(service: Service, shelf: Shelf, page: gr.Blocks) -> Create:
    """Lay out the tab and wire it."""
    styles = Styles(service.data / "styles")
    # Of this browser alone, and no secret. Two: the knobs' listeners are made anew with the cards, and Gradio calls no
    # others of the same event, so that none of theirs may be one of the form's.
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
                compared = gr.Button("Compare", scale=1, min_width=90)
            note = gr.HTML("", elem_id="note")
        with gr.Column(elem_id="results", min_width=280):
            results = make_results(stop)
        with gr.Column(elem_id="knobs", min_width=280):
            board_state, start, empty = gr.State([]), gr.State(Start()), gr.State(False)
            gr.HTML("<h2>Pedal board</h2>", js_on_load=FOCUS_FOLLOWS)
            board_place = gr.Column(elem_id="board")
            names = shelf.names()
            with gr.Row():
                add = gr.Dropdown(names, value=None, label="Add an adapter", min_width=140)
                tag = gr.Dropdown(names, value=None, label="Write its tag into the prompt", min_width=140)
            with gr.Accordion("Styles: boards with a name", open=False):
                style = gr.Dropdown(styles.names(), value=None, label="Load a style")
                with gr.Row(elem_classes="end"):
                    style_name = gr.Textbox(label="Name", max_length=60, min_width=120, scale=3)
                    save = gr.Button("Save", size="sm", min_width=70, scale=1)
                    delete = gr.Button("Delete", size="sm", min_width=70, scale=1)
            gr.HTML("<h2>Settings</h2>")
            made = make_settings(service)
            started = make_start(service, start, made["settings"])
    dice, last_seed, preset = made.pop("dice"), made.pop("last"), made.pop("preset")
    form = Form(
        prompt=prompt,
        negative=negative,
        board=board_state,
        start=start,
        empty=empty,
        **made,
    )
    buttons = _Buttons(
        begin=begin,
        compare=compared,
        add=add,
        added=gr.State(None),
        tag=tag,
        style=style,
        style_name=style_name,
        save=save,
        delete=delete,
        last=last,
        last_board=last_board,
    )
    for box in (*form.boxes(), add, tag, style, style_name):  # Gradio locks what only listeners in a render read
        box.interactive = True
    create = Create(service=service, form=form, results=results, note=note, add=add, tag=tag, takers=[])
    wire_results(service, results, page)
    with board_place:
        _wire_board(service, shelf, styles, form, results, buttons, started, note, create.takers)
    _wire_form(service, page, form, preset, dice, last_seed, tokens, styles, buttons)
    _wire_pictures(service, shelf, create, started)

    def load(kept: dict[str, Any] | None, items: list[Any] | None) -> Values:
        """The form as this browser left it, and what there is now to choose from."""
        said: Values = {add: gr.Dropdown(shelf.names()), tag: gr.Dropdown(shelf.names())}
        said |= {style: gr.Dropdown(styles.names()), form.model: gr.Dropdown(service.models.names)}
        if kept is None and items is None:
            return said
        with suppress(ValueError, TypeError):  # of another version
            kept = {"prompt": first_prompt(service)} if kept is None else kept
            blend = kept.get("blend", {}) | ({} if items is None else {"items": items})
            said |= form.filled(Draw.model_validate(kept | {"blend": blend}), service.models.names)
        return said

    page.load(load, [last, last_board], [*form.boxes(), add, tag, style], **CHANGING)
    return create


def _wire_board(
    service: Service,
    shelf: Shelf,
    styles: Styles,
    form: Form,
    results: Results,
    buttons: _Buttons,
    started: StartBoxes,
    note: gr.HTML,
    takers: list[tuple[gr.Button, gr.State]],
) -> None:
    """The cards, and everything that needs to know what their knobs say."""

    @gr.render(inputs=[form.board, form.model], concurrency_limit=None, show_progress="hidden")
    def show(board: Board, model: str) -> None:
        if not board:
            gr.HTML('<p class="empty">No pedal yet. Add an adapter below; it acts on the next picture.</p>')
        cards = [_card(service, shelf, model, pedal, index, len(board)) for index, pedal in enumerate(board)]
        knobs = {box for card in cards for box in card.boxes()}

        def read(values: Values) -> Board:
            return [card.read(values) for card in cards]

        def draw(values: Values, request: gr.Request) -> Values:
            with saying(service):
                service.draw(form.draw(values, read(values)), client=client_of(request))
            return {
                results.timer: gr.Timer(0.4),
                results.seen: None,
                results.stop: gr.Button(interactive=True),
                note: "",
            }

        def draw_compared(values: Values, request: gr.Request) -> Values:
            with saying(service):
                compare(service, form.draw(values, read(values)), client_of(request))
            return {results.timer: gr.Timer(0.4), results.seen: None}

        def remember(values: Values) -> Any:
            known = [pedal.id for pedal in board] == [pedal.id for pedal in values[form.board]]
            return _kept(lambda: _items(read(values))) if known else gr.skip()  # else these cards are about to go

        def change(turn: Callable[[Board], Board], values: Values) -> Board:
            return turn(read(values))

        def add(values: Values) -> Board:
            added: _Added = values[buttons.added]
            return [*read(values), Pedal(adapter=added.name)]

        def save(values: Values) -> Any:
            with saying(service):
                blend = style_of(read(values), values[form.mode], int(values[form.switch_steps]))
                styles.save(values[buttons.style_name], blend)
            gr.Info("saved", duration=2)
            return gr.Dropdown(styles.names())

        def take(values: Values) -> Taken:
            with saying(service):
                return Taken(form.draw(values, read(values)))

        everything = form.boxes() | knobs
        drawn = [results.timer, results.seen, results.stop, note]
        gr.on([buttons.begin.click, form.prompt.submit], draw, everything, drawn, key="draw", **CHANGING)
        buttons.compare.click(draw_compared, everything, [results.timer, results.seen], key="compare", **CHANGING)
        if knobs:
            changes = [box.change for box in knobs]
            gr.on(changes, remember, knobs | {form.board}, buttons.last_board, key="remember", **_REMEMBERING)
        buttons.added.change(add, knobs | {buttons.added}, form.board, key="add", **CHANGING)
        buttons.save.click(
            save, knobs | {buttons.style_name, form.mode, form.switch_steps}, buttons.style, key="save", **CHANGING
        )
        for button, taken in takers:
            button.click(take, everything, taken, **CHANGING)
        for index, card in enumerate(cards):
            turns = (
                (card.up, partial(moved, index=index, by=-1)),
                (card.down, partial(moved, index=index, by=1)),
                (card.remove, partial(_without, index=index)),
            )
            for button, turn in turns:
                button.click(partial(change, turn), knobs, form.board, **CHANGING)
            for word, button in card.words.items():
                button.click(partial(_with_word, word), form.prompt, form.prompt, **CHANGING)
            card.take_mask.click(partial(_take_mask, service), started.editor, card.mask, **CHANGING)


def _wire_form(
    service: Service,
    page: gr.Blocks,
    form: Form,
    preset: gr.Dropdown,
    dice: gr.Button,
    last_seed: gr.Button,
    tokens: gr.HTML,
    styles: Styles,
    buttons: _Buttons,
) -> None:
    @cache
    def counter(model: str) -> TokenCounter:
        return TokenCounter(service.models.get(model).model)

    def count(prompt: str, model: str) -> str:
        return html.escape(counter(known_model(service, model)).line(prompt or ""))

    def remember(values: Values) -> Any:
        return _kept(lambda: form.draw(values, []).model_dump(exclude_defaults=True))

    def take_last() -> str:
        pictures = service.gallery.find(limit=1)
        return "" if not pictures or pictures[0].seed is None else str(pictures[0].seed)

    def take_adapter(name: str | None) -> Values:
        return {buttons.added: _Added(name), buttons.add: None} if name else {buttons.add: gr.skip()}

    # Of lists, `change`: Gradio's `select` does not know the keyboard, and `input` comes whenever one is left.
    def take_preset(name: str) -> Values:
        return preset_updates(form, name) | {preset: None} if name else {preset: gr.skip()}

    def take_tag(prompt: str, name: str | None) -> Values:
        if not name:
            return {buttons.tag: gr.skip()}
        return {form.prompt: f"{prompt} <lora:{name}:1>".lstrip(), buttons.tag: None}

    def load_style(name: str | None) -> Values:
        if not name:
            return {form.board: gr.skip()}
        with saying(service):
            blend = styles.load(name)
        return {
            form.board: board_of(blend),
            form.mode: blend.get("mode", "sum"),
            form.switch_steps: blend.get("switch_steps", 1),
            buttons.style_name: name,
            buttons.style: None,
        }

    def delete(name: str) -> Values:
        with saying(service):
            styles.delete(name)
        return {buttons.style: gr.Dropdown(styles.names()), buttons.style_name: ""}

    counted = [page.load, form.prompt.change]
    gr.on(counted, count, [form.prompt, form.model], tokens, trigger_mode="always_last", **AT_ONCE)
    form.negative.change(lambda text, empty: empty and not text, [form.negative, form.empty], form.empty, **AT_ONCE)
    form.board.change(lambda board: _kept(lambda: _items(board)), form.board, buttons.last_board, **AT_ONCE)
    changes = [box.change for box in form.boxes() - {form.board}]
    gr.on(changes, remember, form.boxes(), buttons.last, **_REMEMBERING)
    dice.click(new_seed, None, form.seed, **AT_ONCE)
    last_seed.click(take_last, None, form.seed, **AT_ONCE)
    boxes = [*preset_boxes(form), preset]
    preset.change(take_preset, preset, boxes, **AT_ONCE)
    buttons.add.change(take_adapter, buttons.add, [buttons.added, buttons.add], **CHANGING)
    buttons.tag.change(take_tag, [form.prompt, buttons.tag], [form.prompt, buttons.tag], **AT_ONCE)
    styled = [form.board, form.mode, form.switch_steps, buttons.style_name, buttons.style]
    buttons.style.change(load_style, buttons.style, styled, **CHANGING)
    buttons.delete.click(delete, buttons.style_name, [buttons.style, buttons.style_name], **CHANGING)


def _wire_pictures(service: Service, shelf: Shelf, create: Create, started: StartBoxes) -> None:
    """The buttons below the newest pictures."""

    def use(file: str) -> Values:
        with saying(service):
            return create.filled(reuse(service, shelf, file))

    def begin(file: str) -> Values:
        with saying(service):
            image = service.uploads.keep(service.gallery.path(file).read_bytes())
            return started.begun(service, Start(image=image))

    create.results.reuse.click(use, create.results.chosen, create.outputs(), **CHANGING)
    begun = [started.start, started.width, started.height]
    create.results.begin.click(begin, create.results.chosen, begun, **CHANGING)


def _card(service: Service, shelf: Shelf, model: str, pedal: Pedal, index: int, count: int) -> Card:
    entry = shelf.get(pedal.adapter)
    trouble = service.public(trouble_of(entry, service.models.get(known_model(service, model)).model))
    return make_card(pedal, index, count, entry, shelf.preview(entry) if entry else "", trouble)


def _without(board: Board, index: int) -> Board:
    return [pedal for place, pedal in enumerate(board) if place != index]


def _with_word(word: str, prompt: str) -> str:
    """Once: the second press is a person who has not seen what the first did. Tags are no words of the prompt."""
    if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", re.sub("<[^>]*>", " ", prompt), re.IGNORECASE):
        gr.Info(f"{html.escape(word)} is in the prompt already", duration=2)
        return prompt
    return f"{prompt.rstrip().rstrip(',')}, {word}" if prompt.strip() else word


def _take_mask(service: Service, value: dict[str, Any] | None) -> str:
    with saying(service):
        return kept_mask(service, value)


def _items(board: Board) -> list[Any]:
    return style_of(board, "sum", 1)["items"]


def _kept(say: Callable[[], Any]) -> Any:
    """What the browser is to remember; as before where the boxes make no sense, such as half of a number."""
    try:
        return say()
    except (LorablendError, ValueError, TypeError):
        return gr.skip()


def first_prompt(service: Service) -> str:
    """Of the demo the prompt that its adapters are shown with, so that one click draws a picture; else ""."""
    if service.models.folder().resolve() != model_dir():
        return ""
    return read_showcase(adapters_dir() / "showcase.json").prompt

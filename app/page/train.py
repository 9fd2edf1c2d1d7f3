"""The Train tab: upload pictures, look through them, and train an adapter on them."""

from __future__ import annotations

import html
from contextlib import ExitStack
from pathlib import Path

import gradio as gr

from lorablend.adapters.errors import RequestError
from lorablend.app.files import clean_name
from lorablend.app.library.shelf import Shelf
from lorablend.app.page.create import Create
from lorablend.app.page.form import Values
from lorablend.app.page.review import make_review
from lorablend.app.page.say import AT_ONCE, CHANGING, CHOOSING, HIDDEN, saying
from lorablend.app.page.train_form import make_train_form
from lorablend.app.page.train_run import make_train_run
from lorablend.app.service import Service
from lorablend.train.data.archives import ARCHIVES
from lorablend.train.data.pictures import SUFFIXES

__all__ = ["make_train"]

_PROGRESS = gr.Progress()
_LISTED = 6  # notes about the uploaded files


def make_train(service: Service, shelf: Shelf, create: Create, page: gr.Blocks, tab: gr.Tab) -> None:
    """Lay the tab out and wire it."""
    with gr.Row(equal_height=False, elem_id="train"):
        with gr.Column(scale=6, min_width=280):
            gr.HTML("<h2>Pictures</h2>")
            name = gr.Dropdown(
                service.sets.names(),
                value=None,
                label="Data set (choose one, or type a new name)",
                allow_custom_value=True,
                elem_id="train-set",
            )
            files = gr.File(
                label="Pictures, .txt captions of the same names, or one archive",
                file_count="multiple",
                file_types=[*sorted(SUFFIXES), ".txt", *ARCHIVES],
                height=170,
                elem_id="train-files",
            )
            notes = gr.HTML("", elem_id="train-notes")
            review = make_review(service, name)
            with gr.Row(elem_classes="actions"):
                remove = gr.Button("Remove this data set", size="sm", scale=0, min_width=170)
            with gr.Row(visible=False, elem_classes="sure") as sure:
                question = gr.HTML("")
                really = gr.Button("Remove it for good", variant="stop", size="sm", min_width=130)
                keep = gr.Button("Keep it", size="sm", min_width=80)
        with gr.Column(scale=5, min_width=280):
            gr.HTML("<h2>Training</h2>")
            form = make_train_form(service)
            name.interactive = True
            make_train_run(service, shelf, create, form, name, page)

    def show(chosen: str | None, file: str = "") -> Values:
        return {notes: ""} | review.view(service, chosen, file)

    def add(paths: list[str] | None, chosen: str | None, progress: gr.Progress = _PROGRESS) -> Values:
        if not paths:
            return {notes: gr.skip()}
        with saying(service), ExitStack() as opened:
            sent = [(Path(path).name, opened.enter_context(Path(path).open("rb"))) for path in paths]
            set_name = (chosen or "").strip() or _new_name(service.sets.names(), sent[0][0])
            added = service.sets.add(
                set_name, sent, lambda done, count: progress((done, count), desc="pictures", unit="pictures")
            )
        lines = "".join(f"<li>{html.escape(service.public(note))}</li>" for note in added.notes[:_LISTED])
        updates = show(set_name, added.files[0] if added.files else "") | {notes: f'<ul role="status">{lines}</ul>'}
        return updates | {name: gr.Dropdown(service.sets.names(), value=set_name), files: None}

    def ask(chosen: str | None) -> Values:
        with saying(service):
            if not chosen:
                raise RequestError("no data set is chosen; choose one")
            facts = service.sets.facts(chosen)
        count = facts.pictures + facts.dropped
        pictures = f"{count} picture{'' if count == 1 else 's'}"
        text = f"Remove {html.escape(facts.name)} with its {pictures}? It cannot be brought back."
        return {sure: gr.Row(visible=True), question: f'<p role="alert">{text}</p>'}

    def forget(chosen: str | None) -> Values:
        with saying(service):
            service.training.remove_set(chosen or "")
        names = service.sets.names()
        first = names[0] if names else None
        return show(first) | {name: gr.Dropdown(names, value=first), sure: gr.Row(visible=False)}

    def load() -> Values:
        """Show the picture that was viewed last in any tab, and the settings of the current or last training."""
        names, job = service.sets.names(), service.jobs.current("train")[0]
        request = job.request if job else {}
        chosen, file = service.sets.looked_at or (request.get("set"), "")
        chosen = chosen if chosen in names else (names[0] if names else None)
        return show(chosen, file) | form.filled(request) | {name: gr.Dropdown(names, value=chosen)}

    def refresh(chosen: str | None, file: str) -> Values:
        """Show what another tab or a program has changed; nothing before the page is loaded."""
        return (show(chosen, file) if chosen else {}) | {name: gr.Dropdown(service.sets.names())}

    outputs = [notes, *review.outputs()]
    name.input(show, [name, review.shown], outputs, **CHOOSING)  # also fires when the box loses the focus
    remove.click(ask, name, [sure, question], **CHANGING)
    keep.click(None, None, sure, js=HIDDEN, **AT_ONCE)
    really.click(forget, name, [*outputs, name, sure], **CHANGING)
    files.upload(
        add,
        [files, name],
        [*outputs, name, files],
        show_progress_on=notes,  # also for the word "Error", which would cover the picture
        api_visibility="private",
        concurrency_limit=None,
    ).failure(lambda: None, None, files, **AT_ONCE)  # else refused files would be sent again with the next ones
    tab.select(refresh, [name, review.shown], [*outputs, name], **CHANGING)
    page.load(load, None, [*outputs, name, *form.boxes.values()], **CHANGING)


def _new_name(names: list[str], file: str) -> str:
    """Name a data set whose pictures were sent before a name was typed: after the archive, or by a number."""
    stem = clean_name(file.partition(".")[0]) if file.lower().endswith(ARCHIVES) else "pictures"
    taken = {name.casefold() for name in names}
    numbered = (f"{stem} {number}" for number in range(2, len(names) + 3))
    return next(candidate for candidate in (stem or "pictures", *numbered) if candidate.casefold() not in taken)

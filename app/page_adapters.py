"""The tab of the library: what is in it, what is in one file, and how more come in."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from lorablend.adapters import inspect_adapter, load_adapter
from lorablend.adapters.errors import RequestError
from lorablend.app.library import Entry
from lorablend.app.page_create import Create
from lorablend.app.page_form import Values
from lorablend.app.page_pedal import Pedal
from lorablend.app.page_say import CHANGING, saying, size_text
from lorablend.app.service import Service
from lorablend.app.shelf import Shelf

__all__ = ["make_adapters"]

_HEADERS = ["Name", "Model", "Algorithm", "Rank", "Trigger words", "Size", "★", "Trouble"]
_WIDTHS: list[str | int] = ["170px", "80px", "100px", "60px", "190px", "90px", "40px", "260px"]
_SHOWN_LIST = 5  # entries of a long list in the report
_NONE = '<p class="empty">No adapter here that fits.</p>'
_NOTHING = '<p class="empty">Choose an adapter to see what is in it.</p>'


def make_adapters(service: Service, shelf: Shelf, create: Create, tab: gr.Tab) -> None:
    """Lay out the tab and wire it."""
    writable = shelf.library is not None
    with gr.Row(elem_classes="end"):
        search = gr.Textbox(label="Search names, trigger words, tags, hashes", min_width=180, scale=3)
        base = gr.Dropdown(["", "sdxl", "sd15", "sd2", "unknown"], value="", label="Model", min_width=110, scale=1)
        favourites = gr.Checkbox(False, label="Favourites only", min_width=130, scale=1)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=280):
            table = gr.Dataframe(
                headers=_HEADERS,
                datatype="str",
                type="array",
                label="Adapters",
                interactive=False,
                column_widths=_WIDTHS,
                max_height=560,
                buttons=[],
                visible=False,
                elem_id="library",
            )
            none = gr.HTML(_NONE)
        with gr.Column(scale=2, min_width=280):
            name = gr.Dropdown(shelf.names(), value=None, label="Adapter")
            with gr.Row(elem_classes="actions"):
                use = gr.Button("Add to the board", variant="primary", size="sm")
                mark = gr.Button("Favourite", size="sm", visible=writable, min_width=90)
            facts = gr.HTML(_NOTHING, elem_id="facts")
            with gr.Accordion("Add to the library", open=False, visible=writable):
                upload = gr.File(label="Adapter file", file_types=[".safetensors"], height=120, elem_id="upload")
                address = gr.Textbox(
                    label="Or an address, or hf:owner/repo[/file] on the Hugging Face Hub",
                    placeholder="https://… or hf:owner/repo",
                )
                own_name = gr.Textbox(label="Name (if another than the file's)")
                bring = gr.Button("Add", size="sm")
                brought = gr.HTML("")

    def rows(text: str, model: str, only: bool) -> Values:
        found = _found(shelf, text or "", model or "", only)
        names = [entry.name for entry in shelf.entries()]
        return {
            table: gr.Dataframe([_row(service, entry) for entry in found], visible=bool(found)),
            none: gr.HTML(_NONE, visible=not found),
            name: gr.Dropdown(names),
        }

    def select(text: str, model: str, only: bool, event: gr.SelectData) -> str:
        return _found(shelf, text or "", model or "", only)[event.index[0]].name

    def show(chosen: str | None) -> Values:
        entry = shelf.get(chosen) if chosen else None
        if entry is None:
            return {facts: _NOTHING, mark: gr.skip()}
        words = "No favourite" if entry.favourite else "Favourite"
        return {facts: _facts(service, shelf, entry), mark: gr.Button(words)}

    def put(chosen: str | None, board: list[Pedal]) -> list[Pedal]:
        if not chosen:
            raise gr.Error("no adapter is chosen; choose one from the list", print_exception=False)
        gr.Info(f"{html.escape(chosen)} is on the board", duration=2)
        return [*board, Pedal(adapter=chosen)]

    def toggle(chosen: str | None) -> None:
        entry = shelf.get(chosen) if chosen else None
        if entry is not None and shelf.library is not None:
            with saying(service):
                shelf.library.set_favourite(entry.name, not entry.favourite)

    def add(path: str | None, text: str, wanted: str, progress: gr.Progress = _PROGRESS) -> Values:
        def report(done: int, total: int | None) -> bool:
            progress((done, total) if total else 0, desc=size_text(done), unit="bytes")
            return True

        with saying(service):
            if shelf.library is None:
                raise RequestError("this folder of adapters is no library; start with one to add to it")
            source = Path(path) if path else _checked(text)
            own = wanted.strip() or (Path(path).stem if path else "")
            entry = shelf.library.add(str(source), name=own or None, progress=report)
        names = shelf.names()
        return {
            brought: f"<p>{html.escape(entry.name)} is in the library</p>",
            name: gr.Dropdown(names, value=entry.name),
            create.add: gr.Dropdown(names),
            upload: None,
        }

    filters = [search, base, favourites]
    gr.on([tab.select, base.input, favourites.input], rows, filters, [table, none, name], **CHANGING)
    search.change(rows, filters, [table, none, name], trigger_mode="always_last", **CHANGING)
    table.select(select, filters, name, **CHANGING)
    name.change(show, name, [facts, mark], **CHANGING)
    use.click(put, [name, create.form.board], create.form.board, **CHANGING)
    mark.click(toggle, name, None, **CHANGING).then(show, name, [facts, mark], **CHANGING).then(
        rows, filters, [table, none, name], **CHANGING
    )
    bring.click(
        add,
        [upload, address, own_name],
        [brought, name, create.add, upload],
        show_progress_on=brought,
        api_visibility="private",
    ).success(rows, filters, [table, none, name], **CHANGING)


_PROGRESS = gr.Progress()


def _found(shelf: Shelf, text: str, model: str, only: bool) -> list[Entry]:
    if shelf.library is not None:
        shelf.library.scan()
        return shelf.library.search(text, base_model=model or None, favourite=True if only else None)
    words = text.casefold().split()
    return [
        entry
        for entry in shelf.entries()
        if (not model or entry.base_model == model)
        and not only
        and all(word in " ".join((entry.name, entry.title, *entry.trigger_words)).casefold() for word in words)
    ]


def _row(service: Service, entry: Entry) -> list[str]:
    return [
        entry.name,
        entry.base_model,
        ", ".join(entry.algorithms),
        ", ".join(map(str, entry.ranks)),
        ", ".join(entry.trigger_words[:_SHOWN_LIST]),
        size_text(entry.size),
        "★" if entry.favourite else "",
        service.public(entry.error or ""),
    ]


def _facts(service: Service, shelf: Shelf, entry: Entry) -> str:
    """The report of `inspect_adapter`, short."""
    picture = shelf.preview(entry)
    face = f'<img class="large" alt="Preview of {html.escape(entry.name)}" src="{picture}">' if picture else ""
    if entry.error:
        return f'{face}<p class="trouble" role="alert">{html.escape(service.public(entry.error))}</p>'
    with saying(service):
        report = inspect_adapter(load_adapter(entry.path))
    lines: dict[str, Any] = {
        "Title": report["title"],
        "Model": report["base_model"],
        "Algorithms": ", ".join(f"{name} ({count})" for name, count in report["algorithms"].items()),
        "Trigger words": ", ".join(report["trigger_words"]),
        "Size": f"{size_text(report['size'])}, {report['tensor_count']} tensors",
        "Tags": ", ".join(entry.tags),
        "Last used": entry.last_used,
        "AutoV2": report["hashes"]["autov2"],
        "SHA-256": report["hashes"]["sha256"],
    }
    for component, part in report["components"].items():
        ranks = ", ".join("none" if rank is None else str(rank) for rank in part["ranks"][:_SHOWN_LIST])
        alphas = ", ".join("none" if alpha is None else f"{alpha:g}" for alpha in part["alphas"][:_SHOWN_LIST])
        lines[component] = f"{len(part['modules'])} modules, rank {ranks}, alpha {alphas}, {', '.join(part['dtypes'])}"
    if report["embeddings"]:
        lines["Embeddings"] = ", ".join(report["embeddings"])
    if report["warnings"]:
        lines["Warnings"] = "; ".join(map(str, report["warnings"][:_SHOWN_LIST]))
    rows = "".join(
        f"<dt>{html.escape(key)}</dt><dd>{html.escape(str(value))}</dd>" for key, value in lines.items() if value
    )
    return f"{face}<h3>{html.escape(entry.name)}</h3><dl>{rows}</dl>"


def _checked(text: str) -> str:
    """An address or a place on the Hub; a path of the server's is no visitor's business."""
    text = (text or "").strip()
    if not text.startswith(("https://", "http://", "hf:")):
        raise RequestError(f'"{text[:80]}" is no address; give a file, https://…, or hf:owner/repo')
    return text

"""The tab of the library: its adapters, the details of one file, and adding more."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from lorablend.adapters import inspect_adapter, load_adapter
from lorablend.app.library.entry import Entry
from lorablend.app.library.shelf import Shelf
from lorablend.app.page.add import library_of, make_add
from lorablend.app.page.board import told
from lorablend.app.page.cards import CARD_CHOSEN, MARK_CHOSEN, cards_html
from lorablend.app.page.create import Create
from lorablend.app.page.form import Values
from lorablend.app.page.heatmap import make_heatmap
from lorablend.app.page.say import CHANGING, CHOOSING, NOW, saying, size_text
from lorablend.app.service import Service

__all__ = ["make_adapters"]

_HEADERS = ["Name", "Model", "Algorithm", "Rank", "Trigger words", "Size", "★", "Problem"]
_WIDTHS: list[str | int] = ["170px", "80px", "100px", "60px", "190px", "90px", "40px", "260px"]
_VIEWS = [("Cards", "cards"), ("Table", "table")]
_CARDS = 60  # shown at first, and added by each click on "Show more"
_SHOWN_LIST = 5  # items shown of a long list
_NONE = '<p class="empty">No adapter matches.</p>'
_NO_FAVOURITE = '<p class="empty">No favourites yet: choose an adapter and press Favourite.</p>'
_NOTHING = '<p class="empty">Choose an adapter to see its details.</p>'


def make_adapters(service: Service, shelf: Shelf, create: Create, tab: gr.Tab) -> None:
    """Lay out the tab and wire it."""
    writable = service.models.lora_dir is not None
    kept_view = gr.BrowserState("cards", storage_key="lorablend-library", secret="lorablend")  # not a secret
    limit = gr.State(_CARDS)
    with gr.Row(elem_classes="end"):
        search = gr.Textbox(label="Search names, trigger words, tags, hashes", min_width=320, scale=3)
        base = gr.Dropdown(
            [("any", ""), "sdxl", "sd15", "sd2", "unknown"], value="", label="Model", min_width=110, scale=1
        )
        favourites = gr.Checkbox(False, label="Favourites only", min_width=160, scale=1)
        view = gr.Radio(_VIEWS, value="cards", label="Show as", min_width=180, scale=1)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=280, elem_id="library"):
            cards = gr.HTML("", visible=False, elem_id="cards", js_on_load=CARD_CHOSEN)
            with gr.Row(visible=False, elem_classes="actions") as rest:
                count = gr.HTML("")
                more = gr.Button("Show more", size="sm", scale=0, min_width=110)
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
            )
            none = gr.HTML(_NONE)
        with gr.Column(scale=2, min_width=280):
            name = gr.Dropdown(shelf.names(), value=None, label="Adapter")
            with gr.Row(elem_classes="actions"):
                use = gr.Button("Add to the board", variant="primary", size="sm")
                mark = gr.Button("Favourite", size="sm", visible=writable, min_width=90)
            facts = gr.HTML(_NOTHING, elem_id="facts")
            tags = gr.Textbox(label="Tags", placeholder="your own words, separated by commas", visible=False)
            done = make_add(service, shelf, name, tab)
    make_heatmap(service, shelf, create.form, name)

    def rows(values: Values) -> Values:
        only, shown, as_cards = values[favourites], values[limit], values[view] == "cards"
        with saying(service):
            names = [entry.name for entry in shelf.entries()]  # scans the folder
            entries = _search(shelf, values[search] or "", values[base] or "", only)
        hidden, visible = len(entries) - shown, entries[:shown] if as_cards else []
        return {
            cards: gr.HTML(cards_html(visible, values[name]), visible=bool(visible)),
            rest: gr.Row(visible=as_cards and hidden > 0),
            count: f'<p class="empty">{shown} of {len(entries)} adapters; {hidden} more</p>',
            table: gr.Dataframe(
                [] if as_cards else [_row(service, entry) for entry in entries], visible=bool(entries and not as_cards)
            ),
            none: gr.HTML(_NO_FAVOURITE if only and not _marked(shelf) else _NONE, visible=not entries),
            name: gr.Dropdown(names),
        }

    def open_tab(values: Values) -> Values:
        """Restore the view that this browser showed last."""
        return {view: values[kept_view]} | rows(values | {view: values[kept_view]})

    def select(clicked: float, newest: float, event: gr.SelectData) -> Values:
        """Use the name in the row itself, because the library may have changed since the table was drawn."""
        return choose(event.row_value[0], clicked, newest)

    def select_card(clicked: float, newest: float, event: gr.SelectData) -> Values:
        return choose(event.value, clicked, newest)

    def choose(chosen: str, clicked: float, newest: float) -> Values:
        """Requests may arrive in another order than the clicks."""
        return {latest: newest} if clicked < newest else {latest: clicked, name: chosen}

    def show(chosen: str | None) -> Values:
        entry = shelf.get(chosen) if chosen else None
        if entry is None:
            return {facts: _NOTHING, mark: gr.Button("Favourite")}
        label = "Remove favourite" if entry.favourite else "Favourite"
        return {facts: _facts(service, shelf, entry), mark: gr.Button(label)}

    def show_another(chosen: str | None) -> Values:
        """Show the tags too. `show` leaves them alone, because it also runs after a mark, during typing."""
        entry = shelf.get(chosen) if chosen else None
        words = None if entry is None or entry.error else ", ".join(entry.tags)
        return show(chosen) | {tags: gr.Textbox(words or "", visible=words is not None)}

    def put(chosen: str | None) -> gr.HTML:
        if not chosen:
            raise gr.Error(_NOT_CHOSEN, print_exception=False)
        gr.Info(f"{html.escape(chosen)} is on the board", duration=2)
        return told(add=chosen)

    def toggle(chosen: str | None) -> None:
        if not chosen:
            raise gr.Error(_NOT_CHOSEN, print_exception=False)
        with saying(service):
            library = library_of(service, shelf)
            library.scan()
            library.set_favourite(chosen, not library.get(chosen).favourite)

    def tag(chosen: str | None, text: str) -> None:
        """Save the tags if they were changed; the box also loses the focus without a change."""
        entry = shelf.get(chosen) if chosen else None
        words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
        if entry is None or words == entry.tags:
            return
        with saying(service):
            library = library_of(service, shelf)
            library.scan()
            library.set_tags(entry.name, words)

    inputs = {search, base, favourites, view, limit, name}
    listed = [cards, rest, count, table, none, name]
    tab.select(open_tab, inputs | {kept_view}, [view, *listed], **CHANGING)
    gr.on([base.input, favourites.input, view.input, limit.change, done.change], rows, inputs, listed, **CHOOSING)
    search.change(rows, inputs, listed, **CHOOSING)
    view.input(lambda chosen: chosen, view, kept_view, **CHOOSING)
    more.click(lambda shown: shown + _CARDS, limit, limit, **CHANGING)
    click, latest = gr.Number(visible=False), gr.State(0.0)
    for choices, chosen_by in ((table, select), (cards, select_card)):
        choices.select(chosen_by, [click, latest], [name, latest], js=f"() => [{NOW}]", **CHOOSING)
    name.change(show_another, name, [facts, mark, tags], **CHANGING)
    name.change(None, name, None, js=MARK_CHOSEN)
    use.click(put, name, create.form.board, trigger_mode="multiple", **CHANGING)
    mark.click(toggle, name, None, **CHANGING).success(show, name, [facts, mark], **CHANGING).success(
        rows, inputs, listed, **CHANGING
    )
    gr.on([tags.submit, tags.blur], tag, [name, tags], None, **CHANGING).success(rows, inputs, listed, **CHANGING)


_NOT_CHOSEN = "no adapter is chosen; choose one from the list"


def _marked(shelf: Shelf) -> bool:
    return any(entry.favourite for entry in shelf.entries())


def _search(shelf: Shelf, text: str, model: str, only: bool) -> list[Entry]:
    if shelf.library is not None:
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
        service.public(entry.error) if entry.error else "",
    ]


def _facts(service: Service, shelf: Shelf, entry: Entry) -> str:
    """A short form of the report of `inspect_adapter`."""
    picture = shelf.preview(entry)
    image = f'<img class="large" alt="Preview of {html.escape(entry.name)}" src="{picture}">' if picture else ""
    if entry.error:
        return f'{image}<p class="trouble" role="alert">{html.escape(service.public(entry.error))}</p>'
    with saying(service):
        report = inspect_adapter(load_adapter(entry.path))
    lines: dict[str, Any] = {
        "Title": report["title"],
        "Model": report["base_model"],
        "Algorithms": ", ".join(f"{name} ({count})" for name, count in report["algorithms"].items()),
        "Trigger words": ", ".join(report["trigger_words"]),
        "Size": f"{size_text(report['size'])}, {report['tensor_count']} tensors",
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
    return f"{image}<h3>{html.escape(entry.name)}</h3><dl>{rows}</dl>"

"""The tab of the gallery: pictures are searched, viewed, compared, marked, reused, deleted and restored."""

from __future__ import annotations

import html
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from lorablend.adapters.errors import RequestError
from lorablend.app.library.shelf import Shelf
from lorablend.app.page.create import Create
from lorablend.app.page.form import Values
from lorablend.app.page.say import AT_ONCE, CHANGING, CHOOSING, HIDDEN, NOW, saying
from lorablend.app.pictures.gallery import GalleryPicture
from lorablend.app.reuse import read_picture, reuse
from lorablend.app.service import Service

__all__ = ["make_gallery"]

_PAGE = 24  # pictures
_ANY = ("any", "")
_HIGHEST_SEED = 2**63 - 1  # the largest integer of SQLite


@dataclass(frozen=True, kw_only=True)
class _GalleryBoxes:
    """The components of the tab.

    Attributes:
        shown: The files on the present page.
        pages: The last file of each earlier page.
        chosen: The file whose details are shown.
        kept: The file that waits for another one to be compared with.
        clicked: When a picture was chosen, by the browser's clock, in milliseconds since the page was opened.
        latest: That of the picture whose details are shown.
        sure: The question before the bin is emptied, answered with `really` or `spare`.
    """

    search: gr.Textbox
    adapter: gr.Dropdown
    seed: gr.Textbox
    favourites: gr.Checkbox
    grid: gr.Gallery
    none: gr.HTML
    newer: gr.Button
    older: gr.Button
    zip: gr.Button
    shown: gr.State
    pages: gr.State
    chosen: gr.State
    kept: gr.State
    clicked: gr.Number
    latest: gr.State
    facts: gr.HTML
    text: gr.Textbox
    use: gr.Button
    mark: gr.Button
    keep: gr.Button
    delete: gr.Button
    pair: gr.ImageSlider
    bin: gr.Dropdown
    restore: gr.Button
    empty: gr.Button
    sure: gr.Row
    question: gr.HTML
    really: gr.Button
    spare: gr.Button
    drop: gr.File
    read: gr.HTML
    use_drop: gr.Button


def make_gallery(service: Service, shelf: Shelf, create: Create, tabs: gr.Tabs, tab: gr.Tab) -> None:
    """Lay out the tab and wire it."""
    boxes = _layout(service)

    def find(values: Values, pages: list[str]) -> Values:
        """The page after the last of `pages`; the first page if that picture was deleted meanwhile."""
        if pages and not _is_there(service, pages[-1]):
            pages = []
        with saying(service):
            pictures = service.gallery.find(
                values[boxes.search] or "",
                adapter=values[boxes.adapter] or None,
                seed=_seed(values[boxes.seed]),
                favourite=True if values[boxes.favourites] else None,
                limit=_PAGE + 1,
                after=pages[-1] if pages else None,
            )
        there = [picture for picture in pictures[:_PAGE] if service.gallery.path(picture.file).is_file()]
        copies = [
            (save_file_to_cache(service.gallery.path(picture.file), boxes.grid.GRADIO_CACHE), _caption(picture))
            for picture in there
        ]
        return {
            boxes.grid: gr.Gallery(copies, selected_index=None, visible=bool(copies)),
            boxes.none: gr.HTML(visible=not copies),
            boxes.shown: [picture.file for picture in there],
            boxes.pages: pages,
            boxes.newer: gr.Button(interactive=bool(pages)),
            boxes.older: gr.Button(interactive=len(pictures) > _PAGE),
            boxes.zip: gr.Button(interactive=bool(copies), link=_zip([picture.file for picture in there])),
            boxes.bin: gr.Dropdown(service.gallery.bin(), value=[]),
        }

    def first(values: Values) -> Values:
        return find(values, [])

    def open_tab(values: Values) -> Values:
        service.gallery.scan(thoroughly=False)
        return find(values, []) | {boxes.adapter: gr.Dropdown([_ANY, *service.gallery.adapters()])}

    def older(values: Values) -> Values:
        return find(values, [*values[boxes.pages], values[boxes.shown][-1]])

    def newer(values: Values) -> Values:
        return find(values, values[boxes.pages][:-1])

    def again(values: Values) -> Values:
        return find(values, values[boxes.pages])

    def select(shown: list[str], clicked: float, latest: float, event: gr.SelectData) -> Values:
        """Requests may arrive in another order than the clicks."""
        if clicked < latest:
            return {boxes.latest: latest}
        return _details(service, boxes, shown[event.index]) | {boxes.latest: clicked}

    def use(file: str) -> Values:
        with saying(service):
            return create.filled(reuse(service, shelf, _chosen(file))) | {tabs: gr.Tabs(selected="create")}

    def mark(file: str) -> Values:
        with saying(service):
            picture = service.gallery.get(_chosen(file))
            service.gallery.mark(file, favourite=not picture.favourite)
        return _details(service, boxes, file)

    def keep(file: str, kept: str) -> Values:
        """The first click keeps a picture, the second one shows it next to another."""
        with saying(service):
            service.gallery.get(_chosen(file))
            if kept == file or not _is_there(service, kept):
                gr.Info("Kept; choose another picture and press Compare again", duration=3)
                return {boxes.kept: file}
            left, right = (
                save_file_to_cache(service.gallery.path(name), boxes.grid.GRADIO_CACHE) for name in (kept, file)
            )
        return {boxes.pair: gr.ImageSlider((left, right), visible=True), boxes.kept: ""}

    def delete(values: Values) -> Values:
        with saying(service):
            service.gallery.delete(_chosen(values[boxes.chosen]))
        kept = "" if values[boxes.kept] == values[boxes.chosen] else values[boxes.kept]
        return find(values, values[boxes.pages]) | _nothing(boxes) | {boxes.kept: kept}

    def restore(values: Values) -> Values:
        with saying(service):
            for file in values[boxes.bin] or service.gallery.bin():
                service.gallery.restore(file)
        return find(values, [])

    def ask() -> Values:
        with saying(service):
            count = len(service.gallery.bin())
            if not count:
                raise RequestError("the bin is empty")
        what = "1 picture" if count == 1 else f"all {count} pictures"
        question = f'<p role="alert">Delete {what} in the bin? They cannot be brought back.</p>'
        return {boxes.sure: gr.Row(visible=True), boxes.question: question}

    def empty(values: Values) -> Values:
        with saying(service):
            service.gallery.empty_bin()
        return {boxes.sure: gr.Row(visible=False)} | find(values, values[boxes.pages])

    def read(path: str | None) -> Values:
        if path is None:
            return {boxes.read: "", boxes.use_drop: gr.Button(interactive=False)}
        with saying(service):
            picture = read_picture(service, shelf, Path(path), Path(path).name)
        missing = "".join(f"<li>{html.escape(line)}</li>" for line in picture.missing)
        missing = f"<p>Missing here:</p><ul>{missing}</ul>" if missing else "<p>Everything that it needs is here.</p>"
        program = f"<p>A picture of {html.escape(picture.program)}</p>"
        text = f'{program}<p class="prompt">{html.escape(picture.draw.prompt[:400])}</p>{missing}'
        return {boxes.read: text, boxes.use_drop: gr.Button(interactive=True)}

    def use_drop(path: str) -> Values:
        with saying(service):
            return create.filled(read_picture(service, shelf, Path(path), Path(path).name)) | {
                tabs: gr.Tabs(selected="create")
            }

    inputs = {boxes.search, boxes.adapter, boxes.seed, boxes.favourites, boxes.pages, boxes.shown, boxes.chosen}
    inputs |= {boxes.bin, boxes.kept}
    listed = [boxes.grid, boxes.none, boxes.shown, boxes.pages, boxes.newer, boxes.older, boxes.zip, boxes.bin]
    details = [boxes.chosen, boxes.facts, boxes.text, boxes.use, boxes.mark, boxes.keep, boxes.delete]
    tab.select(open_tab, inputs, [*listed, boxes.adapter], **CHANGING)
    searches = [boxes.search.change, boxes.seed.submit, boxes.adapter.change, boxes.favourites.input]
    gr.on(searches, first, inputs, listed, **CHOOSING)
    boxes.older.click(older, inputs, listed, **CHANGING)
    boxes.newer.click(newer, inputs, listed, **CHANGING)
    clicks = [boxes.shown, boxes.clicked, boxes.latest]
    boxes.grid.select(select, clicks, [*details, boxes.latest], js=f"(shown, ...rest) => [shown, {NOW}]", **CHOOSING)
    boxes.use.click(use, boxes.chosen, [*create.outputs(), tabs], **CHANGING)
    boxes.mark.click(mark, boxes.chosen, details, **CHANGING)
    boxes.keep.click(keep, [boxes.chosen, boxes.kept], [boxes.pair, boxes.kept], **CHANGING)
    boxes.delete.click(delete, inputs, [*listed, *details, boxes.kept], **CHANGING)
    boxes.restore.click(restore, inputs, listed, **CHANGING)
    boxes.empty.click(ask, None, [boxes.sure, boxes.question], **CHANGING)
    boxes.spare.click(None, None, boxes.sure, js=HIDDEN, **AT_ONCE)
    boxes.really.click(empty, inputs, [boxes.sure, *listed], **CHANGING)
    boxes.drop.change(read, boxes.drop, [boxes.read, boxes.use_drop], **CHANGING)
    boxes.use_drop.click(use_drop, boxes.drop, [*create.outputs(), tabs], **CHANGING)


def _layout(service: Service) -> _GalleryBoxes:
    made: dict[str, Any] = {name: gr.State(value) for name, value in (("chosen", ""), ("kept", ""))}
    made |= {"shown": gr.State([]), "pages": gr.State([]), "latest": gr.State(0.0)}
    made["clicked"] = gr.Number(visible=False)
    with gr.Row(elem_classes="end", elem_id="search"):
        made["search"] = gr.Textbox(label="Words of the prompt", min_width=160, scale=3)
        made["adapter"] = gr.Dropdown(
            [_ANY, *service.gallery.adapters()], value="", label="Adapter", min_width=140, scale=2
        )
        made["seed"] = gr.Textbox(label="Seed", min_width=100, scale=1)
        made["favourites"] = gr.Checkbox(False, label="Favourites only", min_width=130, scale=1)
    with gr.Row(equal_height=False, elem_id="shelf"):
        with gr.Column(scale=3, min_width=280):
            made["none"] = gr.HTML('<p class="empty">No pictures, or none that match.</p>')
            made["grid"] = gr.Gallery(
                label="All pictures",
                visible=False,
                columns=3,
                height="auto",
                object_fit="cover",
                interactive=False,
                buttons=["download", "fullscreen"],
                elem_id="grid",
            )
            with gr.Row(elem_classes="actions"):
                made["newer"] = gr.Button("Newer", size="sm", interactive=False, min_width=80)
                made["older"] = gr.Button("Older", size="sm", interactive=False, min_width=80)
                made["zip"] = gr.Button("Download this page as zip", size="sm", min_width=160)
        with gr.Column(scale=2, min_width=280, elem_id="details"):
            made["facts"] = gr.HTML(_NOTHING)
            with gr.Row(elem_classes="actions"):
                made["use"] = gr.Button("Use these settings", variant="primary", size="sm", interactive=False)
                made["mark"] = gr.Button("Favourite", size="sm", interactive=False, min_width=90)
                made["keep"] = gr.Button("Compare", size="sm", interactive=False, min_width=90)
                made["delete"] = gr.Button("Delete", size="sm", interactive=False, min_width=80)
            made["text"] = gr.Textbox(label="Metadata", lines=4, max_lines=12)
            made["pair"] = gr.ImageSlider(
                label="The two pictures", interactive=False, visible=False, buttons=[], elem_id="pair"
            )
            with gr.Accordion("Drop a picture of any program", open=False):
                made["drop"] = gr.File(label="Picture file", file_types=[".png", ".webp", ".jpg", ".jpeg"], height=120)
                made["read"] = gr.HTML("")
                made["use_drop"] = gr.Button("Use its settings", size="sm", interactive=False)
            with gr.Accordion("Bin", open=False):
                made["bin"] = gr.Dropdown([], multiselect=True, label="Deleted pictures (choose some, or none for all)")
                with gr.Row(elem_classes="actions"):
                    made["restore"] = gr.Button("Restore", size="sm", min_width=80)
                    made["empty"] = gr.Button("Empty the bin", size="sm", variant="stop")
                with gr.Row(visible=False, elem_classes="sure") as sure:
                    made["question"] = gr.HTML("")
                    made["really"] = gr.Button("Delete them for good", variant="stop", size="sm", min_width=130)
                    made["spare"] = gr.Button("Keep them", size="sm", min_width=80)
                made["sure"] = sure
    return _GalleryBoxes(**made)


_NOTHING = '<p class="empty">Choose a picture to see its settings.</p>'


def _details(service: Service, boxes: _GalleryBoxes, file: str) -> Values:
    """Updates that show a picture's details."""
    try:
        picture = service.gallery.get(file)
    except RequestError:  # deleted in another tab
        return _nothing(boxes)
    return {
        boxes.chosen: file,
        boxes.facts: _facts(picture),
        boxes.text: picture.parameters,
        boxes.use: gr.Button(interactive=True),
        boxes.mark: gr.Button("Remove favourite" if picture.favourite else "Favourite", interactive=True),
        boxes.keep: gr.Button(interactive=True),
        boxes.delete: gr.Button(interactive=True),
    }


def _nothing(boxes: _GalleryBoxes) -> Values:
    """Updates for no chosen picture."""
    buttons = (boxes.use, boxes.mark, boxes.keep, boxes.delete)
    return {boxes.chosen: "", boxes.facts: _NOTHING, boxes.text: ""} | {
        button: gr.Button(interactive=False) for button in buttons
    }


def _facts(picture: GalleryPicture) -> str:
    lines = {
        "File": picture.file,
        "Made": time.strftime("%Y-%m-%d %H:%M", time.localtime(picture.created)),
        "Size": f"{picture.width} × {picture.height}",
        "Seed": "unknown" if picture.seed is None else picture.seed,
        "Model": picture.model or "unknown",
        "Adapters": ", ".join(picture.adapters) or "none",
    }
    rows = "".join(f"<dt>{name}</dt><dd>{html.escape(str(value))}</dd>" for name, value in lines.items())
    star = "★ " if picture.favourite else ""
    return f'<p class="prompt">{star}{html.escape(picture.prompt[:400])}</p><dl>{rows}</dl>'


def _is_there(service: Service, file: str) -> bool:
    try:
        return bool(service.gallery.get(file))
    except RequestError:  # deleted, perhaps in another tab
        return False


def _chosen(file: str) -> str:
    if not file:
        raise RequestError("no picture is chosen; click one")
    return file


def _seed(text: str) -> int | None:
    text = (text or "").strip()
    if text and not (text.isdecimal() and len(text) < 20 and int(text) <= _HIGHEST_SEED):
        raise RequestError(f'seed is "{text[:40]}"; give a whole number of at most {_HIGHEST_SEED}')
    return int(text) if text else None


def _caption(picture: GalleryPicture) -> str:
    return picture.prompt[:60] or "no prompt"


def _zip(files: list[str]) -> str:
    """A link, because the first click on Gradio's download button only requests the file."""
    return "api/gallery/zip?" + urlencode([("file", file) for file in files])

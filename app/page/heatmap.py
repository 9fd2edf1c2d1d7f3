"""Comparisons of adapters on the page, with the heat map and the numbers of `lorablend adapters compare`."""

from __future__ import annotations

import html
import tempfile
from pathlib import Path

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError, RequestError
from lorablend.adapters.tools.compare import Comparison, compare
from lorablend.app.library.shelf import Shelf
from lorablend.app.page.form import Form, Values
from lorablend.app.page.say import CHANGING, saying
from lorablend.app.pictures.heatmap import draw_heatmap, numbers, suggestions
from lorablend.app.service import Service
from lorablend.engine.model_weights import model_weights

__all__ = ["make_heatmap"]

_MOST = 15  # other adapters; sixteen in all can be compared


def make_heatmap(service: Service, shelf: Shelf, form: Form, name: gr.Dropdown) -> None:
    """Lay out the accordion and wire it; `name` is the list in which an adapter is chosen."""
    with gr.Accordion("Compare with other adapters", open=False):
        with gr.Row(elem_classes="end"):
            others = gr.Dropdown(
                [],
                value=[],
                multiselect=True,
                max_choices=_MOST,
                label="Other adapters for the same model",
                min_width=280,
                scale=3,
            )
            relative = gr.Checkbox(
                False, label="Relative to the weights of the present model (slower)", min_width=280, scale=2
            )
        begin = gr.Button("Compare", size="sm")
        picture = gr.Image(
            label="Heat map",
            show_label=False,
            type="filepath",
            interactive=False,
            visible=False,
            buttons=["download", "fullscreen"],
            elem_id="heatmap",
        )
        table = gr.HTML("", elem_id="heatmap-numbers")

    def choices(chosen: str | None, before: list[str]) -> Values:
        with saying(service):
            entries = shelf.entries()
        base = next((entry.base_model for entry in entries if entry.name == chosen), "unknown")
        fitting = [entry for entry in entries if base == "unknown" or entry.base_model in (base, "unknown")]
        names = [entry.name for entry in fitting if entry.name != chosen and not entry.error]
        return {
            others: gr.Dropdown(names, value=[other for other in before if other in names]),
            picture: gr.Image(visible=False),
            table: "",
        }

    def show(chosen: str | None, compared: list[str], by_weights: bool, model: str) -> Values:
        with saying(service):
            if not chosen:
                raise RequestError("no adapter is chosen; choose one from the list")
            if not compared:
                raise RequestError(f"there is nothing to compare {chosen} with; choose at least one other adapter")
            entries = {entry.name: entry for entry in shelf.entries()}
            missing = [adapter for adapter in (chosen, *compared) if adapter not in entries]
            if missing:
                raise RequestError(f"{missing[0]} is not in the library any more; choose another")
            adapters = [load_adapter(entries[adapter].path) for adapter in (chosen, *compared)]
            try:
                comparison = None if by_weights else compare(adapters)
            except AdapterError:  # one of them has no factors and needs the model's weights
                comparison = None
            comparison = comparison or compare(adapters, model_weights(service.models.folder(model or None)))
            with tempfile.TemporaryDirectory(dir=service.data) as place:
                path = Path(place) / "heat map.png"
                draw_heatmap(comparison, path)
                copy = save_file_to_cache(path, picture.GRADIO_CACHE)
        words = f"Heat map of {', '.join(comparison.names)}; its numbers are in the table below"
        updates = {picture: gr.Image(copy, alt_text=words, visible=True), table: _numbers(comparison)}
        return updates | {relative: comparison.relative}

    name.change(choices, [name, others], [others, picture, table], **CHANGING)
    begin.click(
        show,
        [name, others, relative, form.model],
        [picture, table, relative],
        show_progress_on=table,
        api_visibility="private",
    )


def _numbers(comparison: Comparison) -> str:
    """The output of the command line as HTML; the table is wide and scrolls separately."""
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in suggestions(comparison))
    heads, rows = numbers(comparison)
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>" for row in rows)
    left_out = "".join(f"<li>left out: {html.escape(text)}</li>" for text in comparison.left_out)
    return (
        f"<ul>{lines}{left_out}</ul>"
        '<div class="wide" role="region" aria-label="Numbers of the heat map" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )

"""The pedal board: adapters chained like a guitarist's effect pedals, each with its knobs.

The board is in the browser (board.html, board.js, board.css), which changes it at once and in order, however slow the
server is, and sends it along with everything that needs it. The server sends whole boards, or tells the board of one
thing (`told`); asked about an adapter, it says what only it knows.
"""

from __future__ import annotations

import secrets
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from lorablend.adapters import Adapter, Blend, BlendItem, load_adapter
from lorablend.adapters.errors import LorablendError
from lorablend.app.library.entry import Entry
from lorablend.app.library.shelf import Shelf
from lorablend.app.page.form import known_model
from lorablend.app.service import Service
from lorablend.engine import ModelFolder
from lorablend.engine.attach import check_attach

__all__ = ["ADAPTER_CHOSEN", "BOARD_STYLE", "MODEL_CHOSEN", "make_board", "told", "trouble_of"]

BOARD_STYLE = Path(__file__).with_name("board.css")

_SEND = 'document.querySelector("#board .pedals").dispatchEvent(new CustomEvent("{event}", {{detail: chosen}}))'

ADAPTER_CHOSEN = f"""chosen => {{
  if (chosen) {_SEND.format(event="add")};
  return null;
}}"""
"""Run by the browser when an adapter is chosen in a list, which it empties: puts the adapter on the board."""

MODEL_CHOSEN = f"chosen => {{ {_SEND.format(event='model')}; }}"
"""Run by the browser when a model is chosen: asks about the adapters again."""


def make_board(service: Service, shelf: Shelf) -> gr.HTML:
    """Lay out the board. Its value is a list of pedals in the form of `Pedal`, or None until it has been loaded.

    Its event `mask` asks for the painted mask; its data goes back with `told`.
    """

    def adapter_facts(asked: dict[str, str]) -> dict[str, Any]:
        """Of `asked["adapter"]` with `asked["model"]`: a data URL or "", trigger words, why it cannot be used or ""."""
        entry = shelf.get(str(asked["adapter"]))
        model = service.models.get(known_model(service, asked["model"])).model
        return {
            "face": shelf.preview(entry) if entry else "",
            "words": list(entry.trigger_words) if entry else [],
            "trouble": service.public(trouble_of(entry, model)),
        }

    return gr.HTML(
        None,
        html_template=_beside("board.html"),
        js_on_load=_beside("board.js"),
        apply_default_css=False,
        server_functions=[adapter_facts],
        elem_id="board",
    )


def told(**what: Any) -> gr.HTML:
    """An update that changes one thing of the board as it then is: `add`, an adapter's name, or `mask`, an upload, with
    the data of the event that asked for it."""
    return gr.HTML(told=what | {"unlike_any_other": secrets.token_hex(4)})


def trouble_of(entry: Entry | None, model: ModelFolder) -> str:
    """Why this model cannot use an adapter, or ""; may name folders of this machine."""
    if entry is None:
        return "not in the library any more; remove it, or add it again"
    try:
        check_attach(Blend((BlendItem(_header(entry.path, entry.modified)),)), model.parameters, model.family)
    except LorablendError as error:
        return str(error)
    return ""


@lru_cache(maxsize=64)
def _header(path: Path, modified: float) -> Adapter:
    """An adapter without its values; with `modified`, a changed file is read again."""
    return load_adapter(path, check_values=False)


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")

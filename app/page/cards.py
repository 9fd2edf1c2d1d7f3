"""The library as cards: buttons with the adapter's picture and its most important facts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from urllib.parse import quote

from lorablend.app.library.entry import Entry
from lorablend.app.page.say import size_text

__all__ = ["CARD_CHOSEN", "MARK_CHOSEN", "cards_html"]

_WORDS = 5  # trigger words

CARD_CHOSEN = """
element.addEventListener("click", event => {
  const card = event.target.closest("button");
  if (card) trigger("select", {index: 0, value: card.dataset.name});
});
"""
"""For the `gr.HTML` of the cards: a click or Enter on a card triggers its `select` event."""

MARK_CHOSEN = """name => {
  for (const card of document.querySelectorAll("#cards button"))
    card.setAttribute("aria-pressed", card.dataset.name === name);
}"""
"""Run by the browser when another adapter is chosen in any way."""


def cards_html(entries: Sequence[Entry], chosen: str | None) -> str:
    """The cards in the given order. Their pictures are loaded through REST when they are scrolled into view."""
    cards = "".join(f"<li>{_card(entry, chosen)}</li>" for entry in entries)
    return f'<ul class="cards">{cards}</ul>'


def _card(entry: Entry, chosen: str | None) -> str:
    name = html.escape(entry.name)
    if entry.preview:
        # Relative to the page, which may be served under a path of another server.
        address = f"api/adapters/{quote(entry.name)}/preview"
        face = f'<img loading="lazy" decoding="async" alt="" src="{address}">'
    else:
        letter = html.escape(entry.path.stem[:1].upper())
        face = f'<span class="faceless" aria-hidden="true">{letter}</span>'
    words = html.escape(", ".join(entry.trigger_words[:_WORDS]))
    below = '<span class="trouble">cannot be used</span>' if entry.error else f"<span>{words}</span>"
    star = '<span role="img" aria-label="favourite">★</span> ' if entry.favourite else ""
    facts = html.escape(f"{entry.base_model} · {size_text(entry.size)}")
    return (
        f'<button type="button" data-name="{name}" aria-pressed="{str(entry.name == chosen).lower()}">{face}'
        f"<strong>{star}{name}</strong> <span>{facts}</span> {below}</button>"
    )

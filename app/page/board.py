"""The pedal board: adapters chained like a guitarist's effect pedals, each with its knobs."""

from __future__ import annotations

import html
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from lorablend.adapters import Adapter, Blend, BlendItem, load_adapter
from lorablend.adapters.errors import LorablendError
from lorablend.app.library.entry import Entry
from lorablend.app.page.form import Values, fitting_step
from lorablend.app.page.pedal import Pedal
from lorablend.engine import ModelFolder
from lorablend.engine.attach import check_attach

__all__ = ["FOCUS_FOLLOWS", "Card", "make_card", "trouble_of"]

_WORDS = 6  # trigger words with a button, at most

FOCUS_FOLLOWS = """
if (!window.lorablendBoard) {
  window.lorablendBoard = true;
  const texts = kind => [...document.querySelectorAll("#board .sign" + kind)].map(sign => sign.textContent.trim());
  const named = words => [...document.querySelectorAll("#board .sign:enabled")].find(
    sign => sign.textContent.trim() === words);
  document.addEventListener("click", event => {
    const pressed = event.target.closest("#board .sign:not(.remove)");
    if (!pressed) return;
    const words = pressed.textContent.trim(), before = texts(".remove").join();
    const back = words.replace(/(up|down)$/, end => end === "up" ? "down" : "up");
    const observer = new MutationObserver(() => {
      if (texts(".remove").join() === before) return;
      observer.disconnect();
      const here = document.activeElement;
      if (here === document.body || here.closest("#board")) (named(words) ?? named(back))?.focus();
    });
    observer.observe(document.querySelector("#board"), {childList: true, subtree: true, characterData: true});
    setTimeout(() => observer.disconnect(), 5000);
  });
}
"""
"""For a `gr.HTML`: keeps the keyboard's focus on a moved pedal. Gradio leaves it in the old place, where the next press
would move another pedal."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """The boxes and buttons of one pedal; `words` has a button for each trigger word."""

    pedal: Pedal
    on: gr.Checkbox
    weight: gr.Slider
    unet: gr.Textbox
    text_encoder: gr.Textbox
    blocks: gr.Textbox
    start: gr.Textbox
    stop: gr.Textbox
    ramp: gr.Textbox
    mask: gr.Textbox
    take_mask: gr.Button
    up: gr.Button
    down: gr.Button
    remove: gr.Button
    words: dict[str, gr.Button]

    def boxes(self) -> set[Any]:
        return {getattr(self, name) for name in self._knobs()}

    def read(self, values: Values) -> Pedal:
        """The pedal with the present values of its knobs."""
        knobs: dict[str, Any] = {name: values[getattr(self, name)] for name in self._knobs()}
        knobs |= {name: knobs[name] or "" for name in _TEXTS}
        return Pedal(adapter=self.pedal.adapter, id=self.pedal.id, **knobs)

    @staticmethod
    def _knobs() -> list[str]:
        return [field.name for field in fields(Pedal) if field.name not in ("adapter", "id")]


_TEXTS = ("unet", "text_encoder", "blocks", "start", "stop", "ramp", "mask")


def make_card(pedal: Pedal, index: int, count: int, entry: Entry | None, preview: str, trouble: str) -> Card:
    """Lay out one pedal.

    Args:
        pedal: Its adapter and the values of its knobs.
        index, count: Its place among the pedals, from 0.
        entry: The adapter, or None if it is not in the library any more.
        preview: A data URL, or "".
        trouble: Why the adapter cannot be used, or "".
    """
    name = pedal.adapter

    def key(what: str) -> tuple[str, str]:
        return pedal.id, what

    with gr.Column(elem_classes="pedal", key=key("card")):
        with gr.Row(elem_classes="pedal-head", key=key("head")):
            if preview:
                gr.HTML(f'<img class="face" alt="Preview of {html.escape(name)}" src="{preview}">', key=key("face"))
            on = gr.Checkbox(pedal.on, label=name, container=False, min_width=100, scale=1, key=key("on"))
            up = _button("up", f"Move {name} up", key("up"), enabled=index > 0)
            down = _button("down", f"Move {name} down", key("down"), enabled=index < count - 1)
            remove = _button("remove", f"Remove {name}", key("remove"))
        weight = gr.Slider(
            min(-2, pedal.weight),
            max(2, pedal.weight),
            pedal.weight,
            step=fitting_step(pedal.weight, 0.05),
            label=f"Weight of {name}",
            container=False,
            key=key("weight"),
        )
        if trouble:
            gr.HTML(f'<p class="trouble" role="alert">{html.escape(trouble)}</p>', key=key("trouble"))
        words: dict[str, gr.Button] = {}
        if entry is not None and entry.trigger_words:
            with gr.Row(elem_classes="words", key=key("words")):
                for word in entry.trigger_words[:_WORDS]:
                    words[word] = gr.Button(word, size="sm", min_width=0, scale=0, key=key(f"word {word}"))
        with gr.Accordion(f"More settings of {name}", open=False, elem_classes="more", key=key("more")):
            with gr.Row(key=key("parts")):
                unet = gr.Textbox(
                    pedal.unet, label="UNet weight", placeholder="as above", min_width=120, key=key("unet")
                )
                encoder = gr.Textbox(
                    pedal.text_encoder,
                    label="Text encoder weight",
                    placeholder="as above",
                    min_width=120,
                    key=key("text_encoder"),
                )
            blocks = gr.Textbox(
                pedal.blocks,
                label="Weights by block",
                placeholder="OUTALL, or 12 numbers: 1,0,0,1,…",
                key=key("blocks"),
            )
            with gr.Row(key=key("schedule")):
                start = gr.Textbox(
                    pedal.start, label="From step", placeholder="3 or 0.25", min_width=90, key=key("start")
                )
                stop = gr.Textbox(
                    pedal.stop, label="Off from step", placeholder="10 or 0.5", min_width=90, key=key("stop")
                )
                ramp = gr.Textbox(pedal.ramp, label="Ramp", placeholder="0, 1", min_width=90, key=key("ramp"))
            with gr.Row(elem_classes="end", key=key("where")):
                mask = gr.Textbox(
                    pedal.mask,
                    label="Mask: left, top, right, bottom",
                    placeholder="0, 0, 0.5, 1",
                    min_width=200,
                    scale=3,
                    key=key("mask"),
                )
                take = gr.Button("Use the painted mask", size="sm", min_width=150, scale=1, key=key("take"))
    for box in (on, weight, unet, encoder, blocks, start, stop, ramp, mask):
        box.interactive = True
    return Card(
        pedal=pedal,
        on=on,
        weight=weight,
        unet=unet,
        text_encoder=encoder,
        blocks=blocks,
        start=start,
        stop=stop,
        ramp=ramp,
        mask=mask,
        take_mask=take,
        up=up,
        down=down,
        remove=remove,
        words=words,
    )


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


def _button(sign: str, words: str, key: tuple[str, str], *, enabled: bool = True) -> gr.Button:
    """A small button that shows a sign (see page.css); its words are for screen readers."""
    return gr.Button(words, size="sm", min_width=0, scale=0, interactive=enabled, elem_classes=["sign", sign], key=key)

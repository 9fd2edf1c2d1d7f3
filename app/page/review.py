"""Looking through a data set, one picture after the other: kept, dropped, captioned, with buttons or with keys."""

from __future__ import annotations

import html
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import gradio as gr

from lorablend.adapters.errors import LorablendError
from lorablend.app.page.form import Values
from lorablend.app.page.say import AT_ONCE
from lorablend.app.service import Service
from lorablend.app.work.sets import SetPicture

__all__ = ["Review", "make_review"]

_NOTHING = '<p class="empty">Choose a data set, or send pictures for a new one.</p>'
_KEYS = """
element.setAttribute("aria-live", "polite");
if (!window.lorablendReview) {
  window.lorablendReview = true;
  const keys = {k: "keep", arrowright: "keep", d: "drop", arrowleft: "previous", u: "undo"};
  document.addEventListener("keydown", event => {
    const review = document.querySelector("#review");
    if (!review || review.offsetParent === null) return;
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    review.tabIndex = -1;
    const at = event.target, key = event.key.toLowerCase();
    const typing = at.isContentEditable || at.matches("textarea, select, input:not([type=checkbox])");
    if (key === "escape" && typing && review.contains(at)) at.blur();
    if (typing || !document.querySelector("#review-keys input")?.checked) return;
    if (key.startsWith("arrow") && at !== document.body && !review.contains(at)) return;
    if (key === "e") document.querySelector("#review-caption textarea")?.focus();
    else if (key in keys) document.querySelector("#review-" + keys[key])?.click();
    else return;
    if (key !== "e") review.focus();
    event.preventDefault();
  });
}
"""


@dataclass(frozen=True, kw_only=True)
class Review:
    """shown: the file of the picture that is seen. A caption is sent with it, so that none gets to another picture."""

    picture: gr.HTML
    count: gr.HTML
    caption: gr.Textbox
    shown: gr.Textbox
    keep: gr.Button
    drop: gr.Button
    previous: gr.Button
    undo: gr.Button
    mosaic: gr.HTML

    def outputs(self) -> list[Any]:
        """The components of `view`."""
        return [self.picture, self.count, self.caption, self.shown, *self._buttons(), self.mosaic]

    def view(self, service: Service, name: str | None, file: str = "", note: str = "") -> Values:
        """A picture of a data set: `file`, or the first one; what there is to see where there is none. note: a word on
        what was just done."""
        there = name in service.sets.names()
        pictures = service.sets.pictures(name) if name and there else []
        dropped = len(service.sets.dropped(name)) if name and there else 0
        place = next((place for place, one in enumerate(pictures) if one.file == file), 0)
        said: Values = {button: gr.Button(interactive=bool(pictures)) for button in self._buttons()}
        said[self.previous] = gr.Button(interactive=place > 0)
        said[self.undo] = gr.Button(interactive=dropped > 0)
        if not name or not pictures:
            empty = f'<p class="empty">{html.escape(name)} has no pictures left.</p>' if name and dropped else _NOTHING
            said |= {self.picture: empty, self.shown: "", self.mosaic: ""}
            count = f"no picture, {dropped} dropped" if dropped else ""
            return said | {self.caption: gr.Textbox("", interactive=False), self.count: f"<p>{count}</p>"}
        one = pictures[place]
        service.sets.looked_at = (name, one.file)
        behind = pictures[place + 1 : place + 2]
        ahead = "".join(f'<img hidden alt="" src="{_address(name, next_one.file)}">' for next_one in behind)
        words = html.escape(one.caption or "no caption", quote=True)
        return said | {
            self.picture: f'<img alt="{html.escape(one.file)}: {words}" src="{_address(name, one.file)}">{ahead}',
            self.count: f"<p><strong>{place + 1} of {len(pictures)}, {dropped} dropped</strong>{note}"
            f" <span>{html.escape(one.file)}</span></p>",
            self.caption: gr.Textbox(one.caption, interactive=True),
            self.shown: one.file,
            self.mosaic: _mosaic(service, name, pictures),
        }

    def _buttons(self) -> list[gr.Button]:
        return [self.previous, self.keep, self.drop, self.undo]


def make_review(service: Service, name: gr.Dropdown) -> Review:
    """Lay it out and wire it. name: of the data set that is chosen."""
    with gr.Column(elem_id="review"):
        count = gr.HTML("", elem_id="review-count", js_on_load=_KEYS)
        picture = gr.HTML(_NOTHING, elem_id="review-picture")
        with gr.Row(elem_classes="actions"):
            previous = gr.Button("← Previous", size="sm", min_width=90, interactive=False, elem_id="review-previous")
            keep = gr.Button(
                "Keep, next (K, →)",
                variant="primary",
                size="sm",
                min_width=140,
                interactive=False,
                elem_id="review-keep",
            )
            drop = gr.Button("Drop (D)", size="sm", min_width=80, interactive=False, elem_id="review-drop")
            undo = gr.Button("Undo drop (U)", size="sm", min_width=110, interactive=False, elem_id="review-undo")
        caption = gr.Textbox(
            label="Caption (E edits it, Escape leaves it)",
            lines=2,
            max_lines=6,
            interactive=False,
            elem_id="review-caption",
        )
        shown = gr.Textbox("", label="File", visible="hidden")
        keys = gr.Checkbox(True, label="Keys K, D, U, E and arrows", container=False, elem_id="review-keys")
        keys.interactive = True
        with gr.Accordion("All pictures at once", open=False):
            mosaic = gr.HTML("", elem_id="mosaic")
    review = Review(
        picture=picture,
        count=count,
        caption=caption,
        shown=shown,
        keep=keep,
        drop=drop,
        previous=previous,
        undo=undo,
        mosaic=mosaic,
    )
    _wire(service, review, name)
    return review


def _wire(service: Service, review: Review, name: gr.Dropdown) -> None:
    """Without Gradio's queue, for a person who knows what he wants presses three keys a second."""

    def keep(name: str, file: str, caption: str) -> Values:
        _save(service, name, file, caption)
        following = [one for one in _names(service, name) if one > file]
        if not following:
            return review.view(service, name, file, " · that was the last one")
        return review.view(service, name, following[0])

    def previous(name: str, file: str, caption: str) -> Values:
        _save(service, name, file, caption)
        before = [one for one in _names(service, name) if one < file]
        return review.view(service, name, before[-1] if before else file)

    def drop(name: str, file: str, _caption: str) -> Values:
        names = _names(service, name)
        if file in names:
            service.sets.drop(name, file)
        others = [one for one in names if one != file]
        following = [one for one in others if one > file] or others[-1:]
        return review.view(service, name, following[0] if following else "")

    def undo(name: str, file: str, caption: str) -> Values:
        _save(service, name, file, caption)
        dropped = service.sets.dropped(name)
        if dropped:
            service.sets.restore(name, dropped[0])
        return review.view(service, name, dropped[0] if dropped else file)

    def leave(name: str, file: str, caption: str) -> Values:
        _save(service, name, file, caption)
        return {review.mosaic: _mosaic(service, name, service.sets.pictures(name))}

    def told(act: Callable[[str, str, str], Values]) -> Callable[[str, str, str], Values]:
        def acted(name: str, file: str, caption: str) -> Values:
            try:
                return act(name, file, caption)
            except (LorablendError, OSError) as error:
                text = html.escape(service.public(str(error)))
                return {review.count: f'<p class="trouble" role="alert">{text}</p>'}

        return acted

    seen = [name, review.shown, review.caption]
    for button, act in ((review.keep, keep), (review.previous, previous), (review.drop, drop), (review.undo, undo)):
        button.click(told(act), seen, review.outputs(), **AT_ONCE)
    review.caption.blur(told(leave), seen, [review.mosaic, review.count], **AT_ONCE)


def _save(service: Service, name: str, file: str, caption: str) -> None:
    """Keep a caption, but not of a picture that was dropped in another tab."""
    if file in _names(service, name):
        service.sets.set_caption(name, file, caption)


def _names(service: Service, name: str) -> list[str]:
    return [one.file for one in service.sets.pictures(name)]


def _address(name: str, file: str) -> str:
    """Seen from the page, so that it may lie below another server's path."""
    return f"api/train/sets/{quote(name)}/pictures/{quote(file)}"


def _mosaic(service: Service, name: str, pictures: list[SetPicture]) -> str:
    """All sheets; fetched when they are looked at, and again after a change."""
    version = zlib.crc32(repr(pictures).encode())
    return "".join(
        f'<img loading="lazy" alt="All pictures of {html.escape(name)} with their captions, sheet {sheet + 1}" '
        f'src="api/train/sets/{quote(name)}/mosaic?sheet={sheet}&amp;version={version}">'
        for sheet in range(service.sets.sheets(name))
    )

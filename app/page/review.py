"""Look through a data set picture by picture, to keep, drop or caption them with buttons or keys."""

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
    """The components; `shown` is the visible picture's file, sent along with its caption so that the two match."""

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
        """The components that `view` updates."""
        return [self.picture, self.count, self.caption, self.shown, *self._buttons(), self.mosaic]

    def view(self, service: Service, name: str | None, file: str = "", note: str = "") -> Values:
        """Show the picture `file` of a data set, or the first one, or that there is none.

        Args:
            note: HTML after the count, about what was just done.
        """
        exists = name in service.sets.names()
        pictures = service.sets.pictures(name) if name and exists else []
        dropped = len(service.sets.dropped(name)) if name and exists else 0
        place = next((place for place, picture in enumerate(pictures) if picture.file == file), 0)
        updates: Values = {button: gr.Button(interactive=bool(pictures)) for button in self._buttons()}
        updates[self.previous] = gr.Button(interactive=place > 0)
        updates[self.undo] = gr.Button(interactive=dropped > 0)
        if not name or not pictures:
            empty = f'<p class="empty">{html.escape(name)} has no pictures left.</p>' if name and dropped else _NOTHING
            updates |= {self.picture: empty, self.shown: "", self.mosaic: ""}
            count = f"no picture, {dropped} dropped" if dropped else ""
            return updates | {self.caption: gr.Textbox("", interactive=False), self.count: f"<p>{count}</p>"}
        picture = pictures[place]
        service.sets.looked_at = (name, picture.file)
        following = pictures[place + 1 : place + 2]
        preload = "".join(f'<img hidden alt="" src="{_address(name, later.file)}">' for later in following)
        words = html.escape(picture.caption or "no caption", quote=True)
        image = f'<img alt="{html.escape(picture.file)}: {words}" src="{_address(name, picture.file)}">'
        return updates | {
            self.picture: image + preload,
            self.count: f"<p><strong>{place + 1} of {len(pictures)}, {dropped} dropped</strong>{note}"
            f" <span>{html.escape(picture.file)}</span></p>",
            self.caption: gr.Textbox(picture.caption, interactive=True),
            self.shown: picture.file,
            self.mosaic: _mosaic(service, name, pictures),
        }

    def _buttons(self) -> list[gr.Button]:
        return [self.previous, self.keep, self.drop, self.undo]


def make_review(service: Service, name: gr.Dropdown) -> Review:
    """Lay it out and wire it; `name` is the box with the data set's name."""
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
    """Wire the buttons without Gradio's queue, for a practised person presses three keys a second."""

    def keep(name: str, file: str, caption: str) -> Values:
        _save(service, name, file, caption)
        following = [other for other in _names(service, name) if other > file]
        if not following:
            return review.view(service, name, file, " · that was the last one")
        return review.view(service, name, following[0])

    def previous(name: str, file: str, caption: str) -> Values:
        _save(service, name, file, caption)
        before = [other for other in _names(service, name) if other < file]
        return review.view(service, name, before[-1] if before else file)

    def drop(name: str, file: str, _caption: str) -> Values:
        names = _names(service, name)
        if file in names:
            service.sets.drop(name, file)
        others = [other for other in names if other != file]
        following = [other for other in others if other > file] or others[-1:]
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

    def reporting(act: Callable[[str, str, str], Values]) -> Callable[[str, str, str], Values]:
        def acted(name: str, file: str, caption: str) -> Values:
            try:
                return act(name, file, caption)
            except (LorablendError, OSError) as error:
                text = html.escape(service.public(str(error)))
                return {review.count: f'<p class="trouble" role="alert">{text}</p>'}

        return acted

    inputs = [name, review.shown, review.caption]
    for button, act in ((review.keep, keep), (review.previous, previous), (review.drop, drop), (review.undo, undo)):
        button.click(reporting(act), inputs, review.outputs(), **AT_ONCE)
    review.caption.blur(reporting(leave), inputs, [review.mosaic, review.count], **AT_ONCE)


def _save(service: Service, name: str, file: str, caption: str) -> None:
    """Save a caption, unless the picture was dropped in another tab."""
    if file in _names(service, name):
        service.sets.set_caption(name, file, caption)


def _names(service: Service, name: str) -> list[str]:
    return [picture.file for picture in service.sets.pictures(name)]


def _address(name: str, file: str) -> str:
    """The address relative to the page, which may be below another server's path."""
    return f"api/train/sets/{quote(name)}/pictures/{quote(file)}"


def _mosaic(service: Service, name: str, pictures: list[SetPicture]) -> str:
    """All contact sheets; loaded when they become visible, and again after a change."""
    version = zlib.crc32(repr(pictures).encode())
    return "".join(
        f'<img loading="lazy" alt="All pictures of {html.escape(name)} with their captions, sheet {sheet + 1}" '
        f'src="api/train/sets/{quote(name)}/mosaic?sheet={sheet}&amp;version={version}">'
        for sheet in range(service.sets.sheets(name))
    )

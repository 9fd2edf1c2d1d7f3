"""Pictures to start from: image to image, repainting what is painted over, and masks for pedals."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from PIL import Image, ImageChops

from lorablend.adapters.errors import RequestError
from lorablend.app.page.form import Start, Values, make_box, size_of
from lorablend.app.page.say import CHANGING, saying
from lorablend.app.pictures.png import encode
from lorablend.app.pictures.uploads import FORMATS, MAX_PIXELS
from lorablend.app.service import Service
from lorablend.engine.given import on_white
from lorablend.engine.pixel_budget import decoding
from lorablend.engine.settings import SETTINGS

__all__ = ["StartBoxes", "kept_background", "kept_mask", "make_start", "start_html"]

_THUMBNAIL = 160  # pixels
_MOST = 3  # the picture, what is painted, and both together


@dataclass(frozen=True)
class StartBoxes:
    """The boxes. start, width and height are the form's."""

    start: gr.State
    width: gr.Slider
    height: gr.Slider
    editor: gr.ImageEditor
    shown: gr.HTML
    newest: gr.Button
    whole: gr.Button
    repaint: gr.Button
    clear: gr.Button

    def begun(self, service: Service, start: Start) -> Values:
        """Start from the pictures, at their own size, for in any other shape they would be stretched."""
        assert start.image is not None
        width, height = size_of(service.uploads.open(start.image).size, int(self.width.maximum))
        return {self.start: start, self.width: width, self.height: height}


def make_start(service: Service, start: gr.State, settings: dict[str, Any]) -> StartBoxes:
    """Lay out the boxes, and wire those that need no pedal. settings: those of the form, to which strength is added."""
    with gr.Accordion("Start from a picture, paint masks", open=False, elem_id="start"):
        newest = gr.Button("Take the newest picture", size="sm")
        editor = gr.ImageEditor(
            type="pil",
            format="png",
            sources=("upload", "clipboard"),
            transforms=(),
            layers=False,
            brush=gr.Brush(default_size=24, colors=["#f97316"], color_mode="fixed"),
            canvas_size=(512, 512),
            label="Picture and mask",
            buttons=[],
            elem_id="editor",
        )
        editor.preprocess = _within_limits(editor)  # pyright: ignore[reportAttributeAccessIssue]
        with gr.Row():
            whole = gr.Button("Start from it", size="sm")
            repaint = gr.Button("Repaint what is painted", size="sm")
        settings["strength"] = make_box(SETTINGS["strength"])
    with gr.Row(elem_classes="started"):
        shown = gr.HTML("", elem_id="started")
        clear = gr.Button("Start from noise again", size="sm", visible=False, min_width=120, scale=0)
    boxes = StartBoxes(start, settings["width"], settings["height"], editor, shown, newest, whole, repaint, clear)
    _wire(service, boxes)
    return boxes


def _within_limits(editor: gr.ImageEditor) -> Any:
    """The editor's `preprocess`, which decodes pictures, within the limit and the common budget of pixels.

    It is not a method of a subclass, because Gradio writes a .pyi file beside the source of every subclass.
    """
    decode = editor.preprocess

    def preprocess(payload: Any) -> Any:
        sent = payload if payload is None or payload.id is None else editor.blob_storage.get(payload.id)
        pixels = 0
        for file in (sent.background, *(sent.layers or ()), sent.composite) if sent else ():
            if file is None:
                continue
            try:
                with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file.path, formats=FORMATS) as picture:
                    pixels += picture.width * picture.height
            except (OSError, Image.DecompressionBombError):
                text = f"the picture cannot be read; give a PNG, JPEG or WebP file of at most {MAX_PIXELS:,} pixels"
                raise gr.Error(text, print_exception=False) from None
        if pixels > _MOST * MAX_PIXELS:
            text = f"the picture has too many pixels; give one of at most {MAX_PIXELS:,}"
            raise gr.Error(text, print_exception=False)
        with decoding(pixels):
            return decode(payload)

    return preprocess


def _wire(service: Service, boxes: StartBoxes) -> None:
    def take_newest() -> dict[str, Any]:
        pictures = service.gallery.find(limit=1)
        if not pictures:
            raise gr.Error("there is no picture yet; draw one, or upload one", print_exception=False)
        path = service.gallery.path(pictures[0].file)
        return {"background": save_file_to_cache(path, boxes.editor.GRADIO_CACHE), "layers": [], "composite": None}

    def whole(value: dict[str, Any] | None) -> Values:
        with saying(service):
            return boxes.begun(service, Start(image=kept_background(service, value)))

    def repaint(value: dict[str, Any] | None) -> Values:
        with saying(service):
            image, mask = kept_background(service, value), kept_mask(service, value)
            return boxes.begun(service, Start(image=image, mask=mask))

    def show(value: Start) -> tuple[str, Any]:
        return start_html(service, value), gr.Button(visible=value.image is not None)

    boxes.newest.click(take_newest, None, boxes.editor, **CHANGING)
    begun = [boxes.start, boxes.width, boxes.height]
    boxes.whole.click(whole, boxes.editor, begun, **CHANGING)
    boxes.repaint.click(repaint, boxes.editor, begun, **CHANGING)
    boxes.clear.click(Start, None, boxes.start, **CHANGING)
    boxes.start.change(show, boxes.start, [boxes.shown, boxes.clear], **CHANGING)


def kept_mask(service: Service, value: dict[str, Any] | None) -> str:
    """The painted parts as an upload, white on black, of the picture's size. Raises RequestError if there are none."""
    layers = [layer.getchannel("A") for layer in (value or {}).get("layers") or () if layer is not None]
    if not layers or not any(layer.getbbox() for layer in layers):
        raise RequestError("nothing is painted; paint over the part to change")
    mask = layers[0]
    for layer in layers[1:]:
        mask = ImageChops.lighter(mask, layer)
    return service.uploads.keep(encode(mask, "png", {}))


def kept_background(service: Service, value: dict[str, Any] | None) -> str:
    """The picture below the paint, as an upload. Raises RequestError if there is none."""
    background: Image.Image | None = (value or {}).get("background")
    # An empty canvas comes as a white picture: a file that the browser could not read, or painting without a picture.
    if background is None or ImageChops.invert(background.convert("RGB")).getbbox() is None:
        raise RequestError("there is no picture; drop one into the box, or take the newest")
    return service.uploads.keep(encode(on_white(background), "png", {}))


def start_html(service: Service, start: Start) -> str:
    """Thumbnails of the pictures to start from; "" if there are none."""
    if start.image is None:
        return ""
    image = _thumbnail(service, start.image, "The picture to start from")
    mask = _thumbnail(service, start.mask, "The mask: white is repainted") if start.mask else ""
    return f"<p>Starts from {'this picture, white is repainted' if mask else 'this picture'}</p>{image}{mask}"


def _thumbnail(service: Service, name: str, words: str) -> str:
    try:
        picture = service.uploads.open(name)
    except RequestError:
        return f"<p>{words} is gone</p>"
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f'<img alt="{words}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'

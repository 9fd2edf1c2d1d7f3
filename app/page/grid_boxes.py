"""The boxes of the grid tab: how they become a `DrawGrid`, and how they are filled from a drawing."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lorablend.adapters.errors import RequestError
from lorablend.app.grid.axes import AXES
from lorablend.app.library.shelf import Shelf
from lorablend.app.orders.draw import Draw
from lorablend.app.orders.grid import DrawGrid
from lorablend.app.page.create import Taken
from lorablend.app.page.form import Values, read_box
from lorablend.app.page.stage import text_stage
from lorablend.app.service import Service
from lorablend.engine.settings import SETTINGS

__all__ = ["IDLE", "NOTHING", "GridBoxes", "asked_of", "choices", "example", "fillable", "filled", "make_boxes"]

_PLACES = ("Columns", "Rows", "Tables")
_FROM_PICTURE = {"": "", "image": " (from a picture)"}  # by what a setting needs
_SWEEPS = (
    ("all weights, times", "weight"),
    *(
        (f"{setting.axis}{_FROM_PICTURE[setting.needs]}", setting.axis)
        for setting in SETTINGS.values()
        if setting.sweep
    ),
    ("words of the prompt", "prompt"),
    ("adapters, one after the other", "checkpoint"),
    ("weight of those adapters", "weight:checkpoint"),
)
_WITH_BOX = ("prompt", "negative_prompt", "width", "height", "steps", "guidance_scale", "seed", "batch")
IDLE = 3.0  # seconds between two looks at the jobs
NOTHING = "Your sheet appears here."
_SURE = "Delete this sheet? It cannot be brought back. Its pictures stay in the gallery."


@dataclass(frozen=True, kw_only=True)
class GridBoxes:
    """The boxes.

    Attributes:
        base: A `Taken` drawing whose other settings, including the blend, all pictures share.
        seen: The state at the last tick of the timer.
        chosen: The file of the sheet that is shown large.
        sure: The question before it is deleted, answered by `really` or `keep`.
    """

    prompt: gr.Textbox
    negative: gr.Textbox
    take: gr.Button
    taken: gr.State
    base: gr.State
    others: gr.HTML
    width: gr.Number
    height: gr.Number
    steps: gr.Number
    guidance: gr.Number
    seed: gr.Textbox
    what: tuple[gr.Dropdown, ...]
    values: tuple[gr.Textbox, ...]
    size: gr.HTML
    begin: gr.Button
    stop: gr.Button
    stage: gr.HTML
    sheet: gr.Image
    delete: gr.Button
    sure: gr.Row
    really: gr.Button
    keep: gr.Button
    chosen: gr.State
    old: gr.Gallery
    files: gr.State
    seen: gr.State
    timer: gr.Timer

    def asked(self) -> set[Any]:
        """The boxes that describe the grid."""
        names = ("prompt", "negative", "base", "width", "height", "steps", "guidance", "seed")
        return {getattr(self, name) for name in names} | {*self.what, *self.values}


def make_boxes(service: Service, shelf: Shelf) -> GridBoxes:
    width, height = service.models.get().model.default_size
    made: dict[str, Any] = {"taken": gr.State(None), "base": gr.State(Taken(Draw(prompt=""))), "files": gr.State([])}
    made |= {"seen": gr.State(None), "chosen": gr.State(""), "timer": gr.Timer(IDLE, active=False)}
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=280):
            with gr.Row(elem_classes="actions"):
                made["take"] = gr.Button(
                    "Take prompt, board and settings from Create", size="sm", scale=0, min_width=290
                )
            made["prompt"] = gr.Textbox(label="Prompt of the grid", lines=2, max_lines=8)
            made["negative"] = gr.Textbox(label="Negative prompt of the grid", max_lines=4)
            made["others"] = gr.HTML(_others(Draw(prompt="")), elem_id="grid-others")
            with gr.Group():
                with gr.Row():
                    made["width"] = gr.Number(width, label="Width", precision=0, step=8, min_width=90)
                    made["height"] = gr.Number(height, label="Height", precision=0, step=8, min_width=90)
                    made["seed"] = gr.Textbox("", label="Seed of all", placeholder="any", max_length=20, min_width=90)
                with gr.Row():
                    made["steps"] = gr.Number(
                        SETTINGS["steps"].default, label="Steps of each", precision=0, min_width=120
                    )
                    made["guidance"] = gr.Number(
                        SETTINGS["guidance_scale"].default, label="Guidance of each", step=0.5, min_width=120
                    )
            what, values = [], []
            for index, place in enumerate(_PLACES):
                first = index == 0
                with gr.Row(elem_classes="axis"):
                    start = "guidance" if first else ""
                    sweeps = choices(shelf, first)
                    what.append(gr.Dropdown(sweeps, value=start, label=f"{place} sweep", min_width=160, scale=2))
                    text = gr.Textbox(label=f"Values of the {place.lower()}", min_width=160, scale=3)
                    text.placeholder = example(start)
                    values.append(text)
            made["what"], made["values"] = tuple(what), tuple(values)
            made["size"] = gr.HTML("", elem_id="grid-size")
            with gr.Row(elem_classes="actions"):
                made["begin"] = gr.Button("Draw the grid", variant="primary", scale=3, min_width=120)
                made["stop"] = gr.Button("Stop", variant="stop", interactive=False, scale=1, min_width=80)
        with gr.Column(scale=6, min_width=280):
            made["stage"] = gr.HTML(text_stage(NOTHING), elem_id="grid-stage")
            made["sheet"] = gr.Image(
                label="Sheet",
                show_label=False,
                interactive=False,
                visible=False,
                buttons=["download", "fullscreen"],
                elem_id="sheet",
            )
            with gr.Row(elem_classes="actions"):
                made["delete"] = gr.Button("Delete this sheet", size="sm", scale=0, min_width=150, visible=False)
            with gr.Row(visible=False, elem_classes="sure") as made["sure"]:
                gr.HTML(f'<p role="alert">{_SURE}</p>')
                made["really"] = gr.Button("Delete it for good", variant="stop", size="sm", min_width=130)
                made["keep"] = gr.Button("Keep it", size="sm", min_width=80)
            made["old"] = gr.Gallery(
                label="Sheets drawn before",
                columns=4,
                height="auto",
                object_fit="contain",
                allow_preview=False,
                interactive=False,
                visible=False,
                buttons=[],
                elem_id="sheets",
            )
    return GridBoxes(**made)


def choices(shelf: Shelf, first: bool) -> list[tuple[str, str]]:
    """The things that an axis can sweep; all axes but the first one may sweep nothing."""
    weights = [(f"weight of {name}", f"weight:{name}") for name in shelf.names()]
    return [*([] if first else [("nothing", "")]), *weights, *_SWEEPS]


def example(what: str) -> str:
    name = what.partition(":")[0]
    if name == "checkpoint":
        return "names of adapters, with commas"
    return AXES[name].partition("=")[2] if name in AXES else ""


def asked_of(boxes: GridBoxes, values: Values) -> DrawGrid:
    """The grid that the boxes describe. Raises RequestError and pydantic's ValidationError."""
    base: Draw = values[boxes.base].draw
    axes = _axes([values[box] for box in boxes.what], [values[box] for box in boxes.values])
    own = {
        "prompt": values[boxes.prompt] or "",
        "negative_prompt": values[boxes.negative] or ("" if base.negative_prompt == "" else None),
        "width": values[boxes.width] or None,
        "height": values[boxes.height] or None,
        "steps": None if base.timesteps else values[boxes.steps],
        "guidance_scale": values[boxes.guidance] or 0,
        "seed": read_box(SETTINGS["seed"], values[boxes.seed]),
        "count": 1,
        "axes": axes,
    }
    return DrawGrid.model_validate(base.model_dump() | own)


def _axes(whats: Sequence[str], texts: Sequence[str]) -> list[str]:
    axes = []
    for place, what, text in zip(_PLACES, whats, texts, strict=True):
        if what and not (text or "").strip():
            raise RequestError(f"the {place.lower()} have no values; write some, such as {example(what)}")
        if what:
            axes.append(f"{what}={text}")
    return axes


def fillable(boxes: GridBoxes) -> list[Any]:
    names = ("prompt", "negative", "base", "others", "width", "height", "steps", "guidance", "seed")
    return [getattr(boxes, name) for name in names]


def filled(service: Service, boxes: GridBoxes, draw: Draw) -> Values:
    known = draw if draw.model in service.models.names else draw.model_copy(update={"model": None})
    width, height = service.models.get(known.model).model.default_size
    return {
        boxes.prompt: draw.prompt,
        boxes.negative: draw.negative_prompt or "",
        boxes.base: Taken(known),
        boxes.others: _others(known),
        boxes.width: draw.width or width,
        boxes.height: draw.height or height,
        boxes.steps: draw.steps or SETTINGS["steps"].default,
        boxes.guidance: draw.guidance_scale,
        boxes.seed: "" if draw.seed is None else str(draw.seed),
    }


def _others(draw: Draw) -> str:
    """The settings that have no box here, in words."""
    blend = draw.blend.get("items", []) if isinstance(draw.blend, dict) else draw.blend
    names = [f"{item['adapter']} {item.get('weight', 1):g}" for item in blend if isinstance(item, dict)]
    names += [f"{item[0]} {item[1]:g}" for item in blend if isinstance(item, list | tuple)]
    settings = {name: getattr(draw, setting.order) for name, setting in SETTINGS.items() if name not in _WITH_BOX}
    words = [
        f"adapters: {', '.join(names)}" if names else "no adapters but those of the prompt",
        *(SETTINGS[name].phrase(value) for name, value in settings.items() if SETTINGS[name].is_worth_telling(value)),
        "from a picture" if draw.image else "",
        "with a mask" if draw.mask else "",
        f"model {draw.model}" if draw.model else "",
    ]
    return f'<p class="empty">{html.escape(" · ".join(word for word in words if word))}</p>'

"""The form on the page: its boxes, what they say as a `Draw`, and how they are filled from one."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from lorablend.adapters.blends.blend import MODES
from lorablend.adapters.errors import RequestError
from lorablend.app.orders.draw import Draw
from lorablend.app.page.pedal import Board, blend_of, board_of
from lorablend.app.service import Service
from lorablend.engine.presets import PRESETS, find_preset
from lorablend.engine.request import MAX_BATCH
from lorablend.engine.schedulers import SCHEDULERS, SPACINGS

__all__ = [
    "Form",
    "Start",
    "Values",
    "fitting_step",
    "known_model",
    "make_settings",
    "model_box",
    "new_seed",
    "preset_updates",
    "size_of",
]

Values = dict[Any, Any]  # component -> value, as Gradio hands them over and takes them

MODEL_DEFAULT = ("the model's own", "")
_MODE_LABELS = {"sum": "together", "switch": "taking turns", "composite": "averaged"}
_LOWEST = 64  # pixels: width and height
_FORMATS = [("PNG", "png"), ("JPEG", "jpeg"), ("WebP", "webp")]


@dataclass(frozen=True, kw_only=True)
class Start:
    """The pictures to start from: names of uploads. mask: white is repainted."""

    image: str | None = None
    mask: str | None = None


@dataclass(frozen=True, kw_only=True)
class Form:
    """The boxes. board: the pedals as they were at the last change of their number or order; what their knobs say is
    known to the board's own listeners. empty: a negative prompt that is empty and counts, which a box cannot say."""

    prompt: gr.Textbox
    negative: gr.Textbox
    board: gr.State
    start: gr.State
    empty: gr.State
    model: gr.Dropdown
    width: gr.Slider
    height: gr.Slider
    steps: gr.Slider
    guidance: gr.Slider
    scheduler: gr.Dropdown
    spacing: gr.Dropdown
    timesteps: gr.Textbox
    count: gr.Slider
    seed: gr.Textbox
    kind: gr.Dropdown
    mode: gr.Dropdown
    switch_steps: gr.Slider
    strength: gr.Slider

    def boxes(self) -> set[Any]:
        return {getattr(self, field.name) for field in fields(self)}

    def draw(self, values: Values, board: Board) -> Draw:
        """What the boxes say. Raises BlendError, RequestError and pydantic's ValidationError."""
        start: Start = values[self.start]
        timesteps = _timesteps(values[self.timesteps])
        return Draw.model_validate(
            {
                "prompt": values[self.prompt],
                "negative_prompt": values[self.negative] or ("" if values[self.empty] else None),
                "blend": blend_of(board, values[self.mode], int(values[self.switch_steps])),
                "width": int(values[self.width]),
                "height": int(values[self.height]),
                "steps": None if timesteps else int(values[self.steps]),
                "guidance_scale": values[self.guidance],
                "seed": _seed(values[self.seed]),
                "scheduler": values[self.scheduler] or None,
                "spacing": None if timesteps else values[self.spacing] or None,
                "timesteps": timesteps,
                "count": int(values[self.count]),
                "image": start.image,
                "strength": values[self.strength] if start.image else None,
                "mask": start.mask,
                "model": values[self.model] or None,
                "format": values[self.kind],
            }
        )

    def filled(self, draw: Draw, models: Sequence[str]) -> Values:
        """All boxes as the drawing says; what it does not say stays as it is. models: the names of those there are."""
        blend: Mapping[str, Any] = draw.blend if isinstance(draw.blend, dict) else {"items": draw.blend}
        said: Values = {
            self.prompt: draw.prompt,
            self.negative: draw.negative_prompt or "",
            self.empty: draw.negative_prompt == "",
            self.board: board_of(blend),
            self.mode: blend.get("mode", "sum"),
            self.switch_steps: blend.get("switch_steps", 1),
            self.start: Start(image=draw.image, mask=draw.mask),
            self.guidance: _reaching(draw.guidance_scale, 0, 20, 0.1),
            self.scheduler: draw.scheduler or "",
            self.spacing: draw.spacing or "",
            self.timesteps: ", ".join(f"{value:.12g}" for value in draw.timesteps or ()),
            self.count: draw.count,
            self.seed: "" if draw.seed is None else str(draw.seed),
            self.kind: draw.format,
        }
        for box, value, high in (
            (self.width, draw.width, 2048),
            (self.height, draw.height, 2048),
            (self.steps, draw.steps, 100),
        ):
            if value is not None:
                said[box] = _reaching(value, 1 if box is self.steps else _LOWEST, high, 1 if box is self.steps else 8)
        if draw.strength is not None:
            said[self.strength] = _reaching(draw.strength, 0.05, 1, 0.05)
        said[self.model] = model_box(models, draw.model)
        return said


def make_settings(service: Service) -> dict[str, Any]:
    """The boxes below the board, in their rows; by the names of `Form`, and `preset`, `dice` and `last`."""
    pipe = service.models.get()
    width, height = pipe.model.default_size
    names = service.models.names
    schedulers = [MODEL_DEFAULT, *((info.label, name) for name, info in SCHEDULERS.items())]
    # All of them with every scheduler: one that does not have the spacing says so, before anything waits.
    spacings = [MODEL_DEFAULT, *((name, name) for name in SPACINGS)]
    made: dict[str, Any] = {}
    with gr.Group(elem_classes="settings"):
        with gr.Row():
            made["width"] = gr.Slider(_LOWEST, max(2048, width), width, step=8, label="Width (pixels)")
            made["height"] = gr.Slider(_LOWEST, max(2048, height), height, step=8, label="Height (pixels)")
        with gr.Row():
            made["steps"] = gr.Slider(1, 100, 20, step=1, label="Steps")
            made["guidance"] = gr.Slider(0, 20, 5, step=0.1, label="Guidance")
        with gr.Row(elem_classes="seed"):
            made["seed"] = gr.Textbox("", label="Seed", placeholder="empty: a new one each time", max_length=20)
            made["dice"] = gr.Button("Dice", size="sm", min_width=60, scale=0)
            made["last"] = gr.Button("Last seed", size="sm", min_width=90, scale=0)
        with gr.Row():
            made["count"] = gr.Slider(1, MAX_BATCH, 1, step=1, label="Pictures")
            made["preset"] = gr.Dropdown(list(PRESETS), value=None, label="Preset (steps, guidance, scheduler)")
    with gr.Accordion("Scheduler, format, model", open=False):
        with gr.Row():
            made["scheduler"] = gr.Dropdown(schedulers, value="", label="Scheduler")
            made["spacing"] = gr.Dropdown(spacings, value="", label="Spacing of noise levels")
        with gr.Row():
            made["timesteps"] = gr.Textbox(
                "", label="Timesteps, in place of steps and spacing", placeholder="999, 749, 499, 249"
            )
            made["kind"] = gr.Dropdown(_FORMATS, value="png", label="File format")
        with gr.Row():
            made["mode"] = gr.Dropdown(
                [(_MODE_LABELS[mode], mode) for mode in MODES], value="sum", label="Adapters act"
            )
            made["switch_steps"] = gr.Slider(1, 20, 1, step=1, label="Steps of a turn")
        made["model"] = gr.Dropdown(names, value=names[0], label="Model")
    return made


def preset_updates(form: Form, name: str) -> Values:
    """The boxes that a preset sets."""
    preset = find_preset(name)
    return {
        form.steps: preset.steps,
        form.guidance: preset.guidance_scale,
        form.scheduler: preset.scheduler,
        form.spacing: "" if preset.timesteps else preset.spacing,
        form.timesteps: ", ".join(map(str, preset.timesteps or ())),
    }


def known_model(service: Service, model: str | None) -> str:
    """The model, or the first one in place of one that was removed meanwhile."""
    return model if model and model in service.models.names else service.models.names[0]


def model_box(names: Sequence[str], chosen: str | None) -> gr.Dropdown:
    """The list of models as it is now; the first one is chosen where `chosen` is none of them."""
    return gr.Dropdown(list(names), value=chosen if chosen in names else names[0])


def size_of(picture: tuple[int, int], highest: int) -> tuple[int, int]:
    """Width and height to draw at, of a picture's shape: multiples of 8, and none above `highest`."""
    scale = max(min(1.0, highest / max(picture)), _LOWEST / min(picture))
    width, height = (min(max(int(side * scale) // 8 * 8, _LOWEST), highest) for side in picture)
    return width, height


def new_seed() -> str:
    return str(secrets.randbelow(2**32))


def _reaching(value: float, low: float, high: float, step: float) -> gr.Slider:
    """The slider's new value; it grows where the value lies outside, and gets finer where it lies between steps."""
    return gr.Slider(minimum=min(low, value), maximum=max(high, value), step=fitting_step(value, step), value=value)


def fitting_step(value: float, step: float) -> float:
    """The slider's step, or a finer one that the value is a multiple of: large enough for the arrow keys to move it."""
    steps = (step, *(finer for finer in (1, 0.01, 0.001) if finer < step))
    return next((one for one in steps if abs(value / one - round(value / one)) < 1e-9), 0.000001)


def _seed(text: str) -> int | None:
    text = (text or "").strip()
    if text and not text.isdecimal():
        raise RequestError(f'seed is "{text[:40]}"; give a whole number of 0 or more, or nothing for a new one')
    return int(text) if text else None


def _timesteps(text: str) -> list[float] | None:
    try:
        return [float(part) for part in (text or "").split(",") if part.strip()] or None
    except ValueError:
        raise RequestError(f'timesteps are "{text[:40]}"; give numbers with commas between them') from None

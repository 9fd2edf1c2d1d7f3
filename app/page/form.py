"""The form on the page: its boxes, how they become a `Draw`, and how they are filled from one."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from lorablend.adapters.blends.blend import MODES
from lorablend.adapters.errors import RequestError
from lorablend.app.orders.draw import Draw
from lorablend.app.page.pedal import blend_of, read_board, written_board
from lorablend.app.service import Service
from lorablend.engine.presets import PRESETS, find_preset
from lorablend.engine.settings import SETTINGS, Setting

__all__ = [
    "Form",
    "Start",
    "Values",
    "fitting_step",
    "known_model",
    "make_box",
    "make_settings",
    "model_box",
    "new_seed",
    "preset_boxes",
    "preset_updates",
    "read_box",
    "size_of",
]

Values = dict[Any, Any]  # component -> value, as Gradio hands them over and takes them

_MODE_LABELS = {"sum": "together", "switch": "taking turns", "composite": "averaged"}
_ELSEWHERE = ("prompt", "negative_prompt", "strength")  # settings with boxes in other parts of the page
_SET_BY_PRESETS = ("steps", "guidance_scale", "scheduler", "spacing", "timesteps")
_FORMATS = [("PNG", "png"), ("JPEG", "jpeg"), ("WebP", "webp")]


@dataclass(frozen=True, kw_only=True)
class Start:
    """The pictures to start from, as names of uploads. White parts of the mask are repainted."""

    image: str | None = None
    mask: str | None = None


@dataclass(frozen=True, kw_only=True)
class Form:
    """The boxes.

    Attributes:
        board: The pedals, for `read_board`.
        empty: Whether an empty negative prompt counts as one, which its box cannot tell.
        settings: By the names of `lorablend.engine.settings`, all but the prompts.
    """

    prompt: gr.Textbox
    negative: gr.Textbox
    board: gr.HTML
    start: gr.State
    empty: gr.State
    model: gr.Dropdown
    kind: gr.Dropdown
    mode: gr.Dropdown
    switch_steps: gr.Slider
    settings: Mapping[str, Any]

    @property
    def width(self) -> gr.Slider:
        return self.settings["width"]

    @property
    def height(self) -> gr.Slider:
        return self.settings["height"]

    @property
    def seed(self) -> gr.Textbox:
        return self.settings["seed"]

    def boxes(self) -> set[Any]:
        own = {getattr(self, field.name) for field in fields(self) if field.name != "settings"}
        return own | set(self.settings.values())

    def draw(self, values: Values) -> Draw:
        """The drawing that the boxes describe. Raises BlendError, RequestError and pydantic's ValidationError."""
        start: Start = values[self.start]
        read = {SETTINGS[name].order: read_box(SETTINGS[name], values[box]) for name, box in self.settings.items()}
        if read["timesteps"]:
            read |= {"steps": None, "spacing": None}
        if start.image is None:
            read |= {name: SETTINGS[name].neutral for name in self.settings if SETTINGS[name].needs == "image"}
        return Draw.model_validate(
            read
            | {
                "prompt": values[self.prompt],
                "negative_prompt": values[self.negative] or ("" if values[self.empty] else None),
                "blend": blend_of(read_board(values[self.board]), values[self.mode], int(values[self.switch_steps])),
                "image": start.image,
                "mask": start.mask,
                "model": values[self.model] or None,
                "format": values[self.kind],
            }
        )

    def filled(self, draw: Draw, models: Sequence[str]) -> Values:
        """All boxes as the drawing has them; sliders stay where it has no value. models: names that exist."""
        blend: Mapping[str, Any] = draw.blend if isinstance(draw.blend, dict) else {"items": draw.blend}
        values: Values = {
            self.prompt: draw.prompt,
            self.negative: draw.negative_prompt or "",
            self.empty: draw.negative_prompt == "",
            self.board: written_board(blend),
            self.mode: blend.get("mode", "sum"),
            self.switch_steps: blend.get("switch_steps", 1),
            self.start: Start(image=draw.image, mask=draw.mask),
            self.kind: draw.format,
            self.model: model_box(models, draw.model),
        }
        for name, box in self.settings.items():
            values[box] = shown_in_box(SETTINGS[name], getattr(draw, SETTINGS[name].order))
        return values


def make_settings(service: Service) -> dict[str, Any]:
    """Lay out the boxes below the board. Returns them by the names of `Form`, and `preset`, `dice` and `last`."""
    width, height = service.models.get().model.default_size
    names = service.models.names
    made: dict[str, Any] = {}
    settings: dict[str, Any] = {}

    def make(name: str, value: Any = None) -> None:
        settings[name] = make_box(SETTINGS[name], value)

    with gr.Group(elem_classes="settings"):
        with gr.Row():
            make("width", width)
            make("height", height)
        with gr.Row():
            make("steps")
            make("guidance_scale")
        with gr.Row(elem_classes="seed"):
            make("seed")
            made["dice"] = gr.Button("Dice", size="sm", min_width=60, scale=0)
            made["last"] = gr.Button("Last seed", size="sm", min_width=90, scale=0)
        with gr.Row():
            make("batch")
            made["preset"] = gr.Dropdown(list(PRESETS), value=None, label="Preset (steps, guidance, scheduler)")
    with gr.Accordion("Scheduler, format, model", open=False):
        with gr.Row():
            make("scheduler")
            make("spacing")  # all of them with every scheduler: the order is refused where they do not go together
        with gr.Row():
            make("timesteps")
            made["kind"] = gr.Dropdown(_FORMATS, value="png", label="File format")
        with gr.Row():
            made["mode"] = gr.Dropdown(
                [(_MODE_LABELS[mode], mode) for mode in MODES], value="sum", label="Adapters act"
            )
            made["switch_steps"] = gr.Slider(1, 20, 1, step=1, label="Steps of a turn")
        for name, setting in SETTINGS.items():
            if name not in settings and name not in _ELSEWHERE and "page" not in setting.absent:
                make(name)
        made["model"] = gr.Dropdown(names, value=names[0], label="Model")
    return made | {"settings": settings}


def preset_boxes(form: Form) -> list[Any]:
    """The boxes that a preset sets."""
    return [form.settings[name] for name in _SET_BY_PRESETS]


def preset_updates(form: Form, name: str) -> Values:
    """The values of `preset_boxes` for a preset."""
    preset = find_preset(name)
    values = {"steps": preset.steps, "spacing": None, "timesteps": None} | preset.settings()
    return {form.settings[name]: shown_in_box(SETTINGS[name], value) for name, value in values.items()}


def known_model(service: Service, model: str | None) -> str:
    """The model, or the first one if it has been removed meanwhile."""
    return model if model and model in service.models.names else service.models.names[0]


def model_box(names: Sequence[str], chosen: str | None) -> gr.Dropdown:
    """The current list of models; the first one is chosen if `chosen` is not in it."""
    return gr.Dropdown(list(names), value=chosen if chosen in names else names[0])


def size_of(picture: tuple[int, int], highest: int) -> tuple[int, int]:
    """Width and height for drawing in a picture's shape: multiples of 8, at most `highest`."""
    lowest = int(SETTINGS["width"].low or 0)
    scale = max(min(1.0, highest / max(picture)), lowest / min(picture))
    width, height = (min(max(int(side * scale) // 8 * 8, lowest), highest) for side in picture)
    return width, height


def new_seed() -> str:
    return str(secrets.randbelow(2**32))


def make_box(setting: Setting, value: Any = None) -> Any:
    """A list for choices, a slider where the declaration has one, else a text box. value: None for the default."""
    value = setting.default if value is None else value
    if setting.choices:
        choices = [(label, name) for name, label in setting.choices.items()]
        default = [(setting.default_text, "")] if setting.default is None else []
        return gr.Dropdown([*default, *choices], value=value or "", label=setting.label)
    if setting.slider:
        low, high, step = setting.slider
        return gr.Slider(low, max(high, value), value, step=step, label=setting.label)
    longest = 20 if setting.kind is int else None
    text = setting.text(value)
    return gr.Textbox(text, label=setting.label, placeholder=setting.placeholder or None, max_length=longest)


def read_box(setting: Setting, value: Any) -> Any:
    """The setting's value from the value of its box. Raises RequestError for text that cannot be read."""
    if setting.choices or setting.kind is str:
        return value or setting.neutral
    if not isinstance(value, str) and value is not None:
        return int(value) if setting.kind is int else value
    text = (value or "").strip()
    if not text:
        return setting.neutral
    if setting.kind is int:
        if text.isdecimal():
            return int(text)
        raise RequestError(f'{setting.name} is "{text[:40]}"; give a whole number of 0 or more, or nothing')
    try:
        numbers = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        message = f'{setting.name} is "{text[:40]}"; give numbers with commas between them, or nothing'
        raise RequestError(message) from None
    return numbers if setting.kind is tuple else numbers[0]


def shown_in_box(setting: Setting, value: Any) -> Any:
    """The update of the box that shows a value; None leaves a slider where it is, and empties any other box."""
    if setting.choices:
        return value or ""
    if setting.slider is None:
        return setting.text(value)
    if value is None:
        return gr.skip()
    low, high, step = setting.slider
    step = fitting_step(value, step)
    return gr.Slider(minimum=min(low, value), maximum=max(high, value), step=step, value=value)


def fitting_step(value: float, step: float) -> float:
    """The slider's step, or a finer one that divides the value: large enough for the arrow keys to move the slider."""
    steps = (step, *(finer for finer in (1, 0.01, 0.001) if finer < step))
    return next((finer for finer in steps if abs(value / finer - round(value / finer)) < 1e-9), 0.000001)

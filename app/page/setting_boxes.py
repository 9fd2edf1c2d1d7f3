"""The boxes for settings of a picture, made from their declarations in `lorablend.engine.settings`."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lorablend.adapters.errors import RequestError
from lorablend.engine.settings import Setting

__all__ = ["fitting_step", "make_box", "read_box", "shown_in_box"]


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

"""The boxes on the page for the settings of a training, and the `Train` that they make."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lorablend.adapters.errors import RequestError
from lorablend.app.orders.train import Train
from lorablend.app.page.form import Values
from lorablend.app.service import Service
from lorablend.shipped import model_dir
from lorablend.train.config import SETTINGS
from lorablend.train.settings import TrainSetting

__all__ = ["TrainForm", "make_train_form", "setting_box"]

# What the values of a setting are called in its box, where they do not speak for themselves.
_CHOICES = {
    "lora": "LoRA",
    "dora": "DoRA: finer, slower",
    "locon": "LoCon: convolutions too",
    "loha": "LoHa",
    "lokr": "LoKr: a small file",
}
_FRONT = (("name", "trigger"), ("steps", "rank"), ("algorithm", "learning_rate"))


@dataclass(frozen=True)
class TrainForm:
    """The boxes of the form, by the field of `Train` that each fills; the data set is chosen elsewhere."""

    boxes: Mapping[str, Any]

    def train(self, values: Values, name: str | None) -> Train:
        """Read the order for the data set `name` from the boxes; an empty box means the default.

        Raises:
            RequestError: The data set or the adapter has no name.
            ValidationError: pydantic's, for a value of the wrong type.
        """
        texts = {field: values[box] for field, box in self.boxes.items()}
        stripped = {field: value.strip() if isinstance(value, str) else value for field, value in texts.items()}
        given = {field: value for field, value in stripped.items() if value not in (None, "")}
        if not name:
            raise RequestError("no data set is chosen; choose one, or send pictures for a new one")
        if "name" not in given:
            raise RequestError("the new adapter has no name; type one")
        return Train.model_validate({"set": name, **given})

    def filled(self, request: Mapping[str, Any]) -> Values:
        """Fill the boxes from an earlier request; those that it does not mention stay as they are."""
        given = {box: request[field] for field, box in self.boxes.items() if field in request}
        return {box: str(value) if isinstance(box, gr.Textbox) else value for box, value in given.items()}


def make_train_form(service: Service) -> TrainForm:
    """Lay the form out."""
    is_demo = service.models.folder().resolve() == model_dir().resolve()
    boxes: dict[str, Any] = {}
    front = [name for row in _FRONT for name in row]
    more = [name for name, setting in SETTINGS.items() if setting.on_page and name not in (*front, "model")]
    more.append("anew")

    def lay_out(rows: Iterable[Sequence[str]]) -> None:
        for row in rows:
            with gr.Row():
                boxes.update({name: _own_box(name, is_demo) or setting_box(SETTINGS[name]) for name in row})

    with gr.Group(elem_classes="settings"):
        lay_out(_FRONT)
    with gr.Accordion("More settings", open=False):
        with gr.Group(elem_classes="settings"):
            lay_out([["model"], *(more[place : place + 2] for place in range(0, len(more), 2))])
        with gr.Accordion("What the settings mean", open=False):
            gr.HTML(_meanings([SETTINGS[name] for name in boxes if name in SETTINGS]))
    return TrainForm(boxes)


def setting_box(setting: TrainSetting) -> Any:
    """The box of a setting. One for a number is a text box, for Gradio's own for numbers may not be empty."""
    face = setting.face
    if setting.kind is bool:
        return gr.Checkbox(setting.default, label=face.label, min_width=120)
    if setting.choices:
        choices = [(_CHOICES.get(value, value), value) for value in setting.choices]
        return gr.Dropdown(choices, value=setting.default, label=face.label, min_width=120)
    value = "" if setting.default is None else setting.default_text
    length = int(setting.bounds.get("maxLength", 20))
    return gr.Textbox(value, label=face.label, placeholder=face.unset, max_length=length, min_width=120)


def _own_box(name: str, is_demo: bool) -> Any:
    """The box of a field that means something else than for the command line, or that only a server has; or None."""
    if name == "name":
        return gr.Textbox(label="Name of the new adapter", max_length=60, min_width=140)
    if name == "model":
        return gr.Textbox(
            "demo" if is_demo else "",
            label=SETTINGS[name].face.label,
            placeholder="owner/name on the Hugging Face Hub, or a name in the server's folder sources",
            max_length=200,
        )
    if name == "anew":
        return gr.Checkbox(False, label="Start over instead of resuming", min_width=120)
    return None


def _meanings(settings: list[TrainSetting]) -> str:
    terms = "".join(
        f"<dt><strong>{html.escape(setting.face.label)}</strong></dt><dd>{html.escape(setting.text)}</dd>"
        for setting in settings
    )
    return f"<dl>{terms}</dl>"

"""The settings of a training on the page: boxes, and what they say as a `Train`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lorablend.adapters.errors import RequestError
from lorablend.app.orders.train import Train
from lorablend.app.page.form import Values
from lorablend.app.service import Service
from lorablend.shipped import model_dir
from lorablend.train.config import TrainConfig

__all__ = ["TrainForm", "make_train_form"]

_FIELDS = TrainConfig.model_fields
_ALGORITHMS = {
    "lora": "LoRA",
    "dora": "DoRA: finer, slower",
    "locon": "LoCon: convolutions too",
    "loha": "LoHa",
    "lokr": "LoKr: a small file",
}


@dataclass(frozen=True)
class TrainForm:
    """boxes: field of `Train` -> its box; all but the data set."""

    boxes: Mapping[str, Any]

    def train(self, values: Values, name: str | None) -> Train:
        """What the boxes say, for the data set `name`; an empty box is a default.

        Raises RequestError where a name is missing, and pydantic's ValidationError.
        """
        said = {field: values[box] for field, box in self.boxes.items()}
        plain = {field: value.strip() if isinstance(value, str) else value for field, value in said.items()}
        given = {field: value for field, value in plain.items() if value not in (None, "")}
        if not name:
            raise RequestError("no data set is chosen; choose one, or send pictures for a new one")
        if "name" not in given:
            raise RequestError("the new adapter has no name; type one")
        return Train.model_validate({"set": name, **given})

    def filled(self, request: Mapping[str, Any]) -> Values:
        """The boxes as an earlier request said; what it does not say is as it was."""
        given = {box: request[field] for field, box in self.boxes.items() if field in request}
        return {box: str(value) if isinstance(box, gr.Textbox) else value for box, value in given.items()}


def make_train_form(service: Service) -> TrainForm:
    """Lay it out."""
    is_demo = service.models.folder().resolve() == model_dir().resolve()
    boxes: dict[str, Any] = {}
    with gr.Group(elem_classes="settings"):
        with gr.Row():
            boxes["name"] = gr.Textbox(label="Name of the new adapter", max_length=60, min_width=140)
            boxes["trigger"] = gr.Textbox(
                label="Trigger word", placeholder="put before captions that lack it", max_length=200, min_width=140
            )
        with gr.Row():
            boxes["steps"] = _number("Steps", "", "by the number of pictures")
            boxes["rank"] = _number("Rank", str(_FIELDS["rank"].default))
        with gr.Row():
            boxes["algorithm"] = gr.Dropdown(
                [(text, name) for name, text in _ALGORITHMS.items()], value="lora", label="Algorithm", min_width=120
            )
            boxes["learning_rate"] = _number("Learning rate", "", "as fits the model")
    with gr.Accordion("More settings", open=False), gr.Group(elem_classes="settings"):
        boxes["model"] = gr.Textbox(
            "demo" if is_demo else "",
            label="Base model",
            placeholder="owner/name on the Hugging Face Hub, or a name in the server's folder sources",
            max_length=200,
        )
        with gr.Row():
            boxes["resolution"] = _number("Resolution (pixels)", "", "the model's own")
            boxes["batch"] = _number("Pictures at once", "", "as fit")
        with gr.Row():
            boxes["alpha"] = _number("Alpha", "", "as the rank")
            boxes["seed"] = _number("Seed", "0")
        with gr.Row():
            boxes["optimizer"] = gr.Dropdown(["adamw", "prodigy"], value="adamw", label="Optimizer", min_width=120)
            boxes["schedule"] = gr.Dropdown(
                ["cosine", "constant"], value="cosine", label="Learning rate over time", min_width=120
            )
        with gr.Row():
            boxes["checkpoints"] = _number("Checkpoints", str(_FIELDS["checkpoints"].default))
            boxes["sample_every"] = _number("Samples every … steps (0: never)", "", "with checkpoints")
        with gr.Row():
            boxes["caption_dropout"] = _number("Part shown without caption", str(_FIELDS["caption_dropout"].default))
            boxes["validation_fraction"] = _number("Part held out to measure", "0")
        with gr.Row():
            boxes["noise_offset"] = _number("Noise offset", "0")
            boxes["ema"] = _number("Average the weights (such as 0.99)", "", "no average")
        with gr.Row():
            boxes["keys"] = gr.Dropdown(["kohya", "diffusers"], value="kohya", label="Names in the file", min_width=120)
            boxes["text_encoder"] = gr.Checkbox(False, label="Train the text encoders too", min_width=120)
        with gr.Row():
            boxes["flip"] = gr.Checkbox(False, label="Mirror half of the pictures", min_width=120)
            boxes["anew"] = gr.Checkbox(False, label="Begin anew, not where it was stopped", min_width=120)
    return TrainForm(boxes)


def _number(label: str, value: str, placeholder: str = "") -> gr.Textbox:
    """A box that may be empty, which Gradio's own for numbers may not; what is no number is said by `Train`."""
    return gr.Textbox(value, label=label, placeholder=placeholder, max_length=20, min_width=120)

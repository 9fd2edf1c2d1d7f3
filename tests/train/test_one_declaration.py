"""Every setting of a training is declared once, in `TrainConfig`; each face repeats its default, limits and help."""

from __future__ import annotations

import html
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin

import gradio as gr
import pytest
import typer
from fastapi import FastAPI
from pydantic.fields import FieldInfo

from lorablend.app.cli.commands import app
from lorablend.app.orders.train import Train
from lorablend.app.page.train_form import TrainForm, make_train_form
from lorablend.app.rest.train import router
from lorablend.shipped import model_dir
from lorablend.train.config import TrainConfig, load_config
from lorablend.train.settings import Face

FIELDS = TrainConfig.model_fields
SCHEMA_NAMES = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "max_length": "maxLength",
}


def face_of(field: FieldInfo) -> Face:
    return next(item for item in field.metadata if isinstance(item, Face))


def limits_of(field: FieldInfo) -> dict[str, Any]:
    pairs = ((schema, getattr(item, name, None)) for item in field.metadata for name, schema in SCHEMA_NAMES.items())
    return {schema: value for schema, value in pairs if value is not None}


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def says_default(text: str, field: FieldInfo) -> bool:
    """Whether the text, for people, means the field's default."""
    if field.default is None or field.default == ():
        return text == face_of(field).unset != ""
    if isinstance(field.default, bool):
        return text == ("yes" if field.default else "no")
    return (text if isinstance(field.default, str) else float(text)) == field.default


@pytest.fixture(scope="module")
def form() -> TrainForm:
    service: Any = SimpleNamespace(models=SimpleNamespace(folder=model_dir))
    with gr.Blocks():
        return make_train_form(service)


@pytest.fixture(scope="module")
def meanings() -> str:
    """The page's list of what the settings mean."""
    service: Any = SimpleNamespace(models=SimpleNamespace(folder=model_dir))
    with gr.Blocks() as page:
        make_train_form(service)
    (text,) = [block.value for block in page.blocks.values() if isinstance(block, gr.HTML)]
    return html.unescape(text)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """What REST tells its clients of an order."""
    server = FastAPI()
    server.include_router(router)
    document = server.openapi()
    for path in ("/api/train", "/api/train/check"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert body == {"$ref": "#/components/schemas/Train"}
    return document["components"]["schemas"]["Train"]["properties"]


@pytest.mark.parametrize("name", FIELDS)
def test_declaration(name: str) -> None:
    """It says all that a face needs, and why a face does without it."""
    field = FIELDS[name]
    face = face_of(field)
    assert field.description
    assert field.description.endswith(".")
    assert field.default not in (None, ()) or face.unset
    assert face.label or face.no_page or face.no_order


@pytest.mark.parametrize("name", FIELDS)
def test_command_line(name: str) -> None:
    field, command = FIELDS[name], typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    parameter: Any = next(parameter for parameter in command.params if parameter.name == name)
    assert parameter.default is None, "else a flag that was not given would override the file"
    if name == "data":
        return  # an argument, which the command's own text describes
    flag = f"--{name.replace('_', '-')}"
    assert parameter.opts == [flag]
    assert parameter.secondary_opts == (
        [f"--no-{flag[2:]}"] if bool in (field.annotation, *get_args(field.annotation)) else []
    )
    assert parameter.help.startswith(field.description)
    rest = parameter.help.removeprefix(field.description)
    for key, limit in limits_of(field).items():
        assert key == "maxLength" or str(limit) in rest or (key == "exclusiveMaximum" and str(limit - 1) in rest)
    if not field.is_required():
        assert says_default(rest.partition("Default: ")[2].removesuffix("."), field)
    if choices_of(field):
        assert parameter.metavar == "|".join(choices_of(field))


@pytest.mark.parametrize("name", FIELDS)
def test_rest(name: str, schema: dict[str, Any]) -> None:
    field = FIELDS[name]
    if face_of(field).no_order:
        assert name not in schema
        return
    entry = schema[name]
    if field.is_required():  # the base model: the server has a default and names of its own
        return
    assert field.description
    help_text, _, default = entry["description"].removesuffix(".").partition(" Default: ")
    assert help_text == field.description
    assert says_default(default, field)
    assert entry.get("default") == field.default
    assert {key: entry[key] for key in SCHEMA_NAMES.values() if key in entry} == limits_of(field)
    if choices_of(field):
        assert tuple(entry["anyOf"][0]["enum"]) == choices_of(field)


@pytest.mark.parametrize("name", FIELDS)
def test_page(name: str, form: TrainForm, meanings: str) -> None:
    field, face = FIELDS[name], face_of(FIELDS[name])
    if face.no_page or face.no_order:
        assert name not in form.boxes
        return
    box = form.boxes[name]
    assert box.label == face.label
    assert field.description
    assert field.description in meanings
    if field.is_required():
        return
    if isinstance(box, gr.Textbox):
        assert box.value == "" if field.default is None else says_default(box.value, field)
        assert box.placeholder == face.unset
    else:
        assert box.value == field.default
    if isinstance(box, gr.Dropdown):
        assert tuple(value for _, value in box.choices) == choices_of(field)


def test_untouched_boxes_are_the_defaults(form: TrainForm, tmp_path: Path) -> None:
    """An order from a form of which only the name was filled in is a training with all defaults."""
    values = {box: box.value for box in form.boxes.values()} | {form.boxes["name"]: "fox"}
    given = form.train(values, "photos").settings()
    own = {"data": tmp_path, "model": "demo", "out": tmp_path / "fox.safetensors"}
    assert TrainConfig.model_validate({**own, **given}) == TrainConfig.model_validate(own)
    assert TrainConfig.model_validate(own).alpha is None


def test_orders_of_older_versions_are_read() -> None:
    """A row of the queue as version 0.1.0 wrote it."""
    row = {"set": "knit", "name": "new", "model": "demo", "steps": 2, "rank": 2, "algorithm": "lora", "ema": None}
    assert Train.model_validate(row).settings() == {"steps": 2, "rank": 2, "algorithm": "lora"}


def test_a_file_of_all_settings_is_read_back(tmp_path: Path) -> None:
    own = {"data": tmp_path, "model": "demo", "out": tmp_path / "fox.safetensors", "min_snr_gamma": 0}
    (tmp_path / "all.toml").write_text(TrainConfig.model_validate(own).to_toml(defaults=True), encoding="utf-8")
    assert load_config(tmp_path / "all.toml", {}) == TrainConfig.model_validate(own)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from lorablend.app.cli.commands import run; run(['train', '--help']);"
        "print(sorted({'openvino', 'gradio', 'torch', 'diffusers', 'PIL'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == "[]\n"

"""Every declared setting reaches every face: `generate`, orders, command line, page, texts, grids and REST bodies."""

from __future__ import annotations

import base64
import inspect
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import typer.main
from PIL import Image

from lorablend.adapters import Blend
from lorablend.adapters.errors import RequestError
from lorablend.app.cli.arguments import settings_of
from lorablend.app.cli.commands import app as commands
from lorablend.app.grid.axes import AXES, parse_axis
from lorablend.app.orders.draw import Draw
from lorablend.app.page.form import Form, Start, Values, make_settings
from lorablend.app.page.page import build_page
from lorablend.app.page.start import make_start
from lorablend.app.pictures.infotext import parse_infotext, read_settings, write_infotext
from lorablend.app.pictures.png import encode
from lorablend.app.pictures.record import Record
from lorablend.app.rest.a1111_forms import ImageToImage, TextToImage
from lorablend.app.rest.openai_forms import ImageForm
from lorablend.app.server import create_app
from lorablend.app.service import Service
from lorablend.engine import Pipeline, Request
from lorablend.engine.schedulers import SCHEDULERS
from lorablend.engine.schedulers.a1111 import schedule_type_of
from lorablend.engine.settings import BATCH, FACES, SETTINGS, Setting, Settings
from lorablend.shipped import adapters_dir, model_dir

GREY = Image.new("RGB", (64, 64), "grey")


@dataclass(frozen=True)
class Kit:
    """What the faces need: a service that is not started, so that nothing is drawn, and the upload of a picture."""

    service: Service
    pipe: Pipeline
    image: str


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    service = Service(tmp_path_factory.mktemp("data"), {"demo": model_dir()}, adapters_dir())
    yield Kit(service, service.models.get(), service.uploads.keep(encode(GREY, "png", {})))
    service.close()


def example(setting: Setting) -> Any:
    """A value that is allowed and is not the default."""
    if setting.choices:
        return list(setting.choices)[1]
    if setting.kind is tuple:
        return (999, 499.5)
    if setting.kind is str:
        return f"a {setting.name.replace('_', ' ')}"
    low = setting.low or 0
    return int(low) + 2 * setting.multiple if setting.kind is int else low + 0.5


def order_of(kit: Kit, setting: Setting, value: Any) -> Draw:
    image = kit.image if setting.needs == "image" else None
    return Draw.model_validate({"prompt": "a fox", "image": image, setting.order: value})


def request_of(kit: Kit, setting: Setting, value: Any) -> Request:
    image = GREY if setting.needs == "image" else None
    return kit.pipe.check(**{"prompt": "a fox", "image": image, setting.name: value})


# each face: give it a value, and return what it makes of it


def by_order(kit: Kit, setting: Setting, value: Any) -> Any:
    draw = order_of(kit, setting, value)
    assert Draw.model_validate_json(draw.model_dump_json(exclude_defaults=True)) == draw
    if setting is BATCH:  # jobs draw one by one
        return draw.count
    return draw.settings(kit.service.uploads)[setting.name]


def by_command_line(_kit: Kit, setting: Setting, value: Any) -> Any:
    command: Any = typer.main.get_command(commands)
    options = {option.opts[0]: option for option in command.commands["generate"].params}
    option = options[setting.flag]
    if setting.flag == "--size":
        assert setting.summary.partition("picture.")[2] in option.help
        return settings_of({option.name: f"{value}x{value}"})[setting.name]
    assert option.help == setting.summary
    assert option.default is None
    typed = option.type.convert(setting.text(value), None, None)
    return setting.checked(settings_of({option.name: typed})[setting.name])


def form_of(kit: Kit) -> tuple[Form, Values]:
    with gr.Blocks():
        made = make_settings(kit.service)
        make_start(kit.service, gr.State(Start()), made["settings"])
        for name in ("dice", "last", "preset"):
            del made[name]
        prompts = {"prompt": gr.Textbox("a fox"), "negative": gr.Textbox()}
        form = Form(**prompts, board=gr.State([]), start=gr.State(Start()), empty=gr.State(False), **made)
    return form, {box: box.value for box in form.boxes()}


def by_page(kit: Kit, setting: Setting, value: Any) -> Any:
    """From an order into the boxes, and back."""
    form, values = form_of(kit)
    for box, update in form.filled(order_of(kit, setting, value), ["demo"]).items():
        values[box] = update.value if hasattr(update, "value") else update
    values = {box: values[box] if values[box] != gr.skip() else box.value for box in values}
    return setting.checked(getattr(form.draw(values), setting.order))


def by_infotext(kit: Kit, setting: Setting, value: Any) -> Any:
    request = request_of(kit, setting, value)
    text = parse_infotext(write_infotext(request, Blend(), request.seed, "demo"))
    values, missing = read_settings(text.settings)
    assert missing == []
    values |= {"prompt": text.prompt, "negative_prompt": text.negative_prompt}
    return setting.checked(values[setting.name])


def by_record(kit: Kit, setting: Setting, value: Any) -> Any:
    request = request_of(kit, setting, value)
    record = Record(request=request, seed=1, adapters=(), model="demo", device="CPU", runtime="live", versions={})
    assert Record.from_json(record.to_json()) == record
    return getattr(Record.from_json(record.to_json()).request, setting.name)


def by_grid(_kit: Kit, setting: Setting, value: Any) -> Any:
    axis = parse_axis(f"{setting.axis}={setting.text(value)}")
    assert parse_axis(AXES[setting.axis]).argument == setting.name
    assert axis.argument == setting.name
    return axis.values[0]


def by_sdapi(kit: Kit, setting: Setting, value: Any) -> Any:
    named = {"scheduler": SCHEDULERS["euler_a"].label, "spacing": schedule_type_of("trailing")}
    body = {setting.sdapi: named.get(setting.name, value)}
    if setting.needs == "image":
        picture = base64.b64encode(encode(GREY, "png", {})).decode()
        form: TextToImage = ImageToImage.model_validate(body | {"init_images": [picture]})
    else:
        form = TextToImage.model_validate(body)
    assert setting.sdapi in form.model_fields_set
    return form.settings(kit.service, None)[setting.order]


def by_openai(kit: Kit, setting: Setting, value: Any) -> Any:
    form = ImageForm.model_validate({"prompt": "a fox", setting.openai: value})
    assert setting.openai in form.model_fields_set
    image = kit.image if setting.needs == "image" else None
    return setting.checked(getattr(form.draw(kit.service.models, image), setting.order))


WALK: dict[str, Callable[[Kit, Setting, Any], Any]] = {
    "order": by_order,
    "command line": by_command_line,
    "page": by_page,
    "infotext": by_infotext,
    "record": by_record,
    "grid": by_grid,
    "sdapi": by_sdapi,
    "openai": by_openai,
}


def test_every_face_is_walked() -> None:
    assert tuple(WALK) == FACES
    for setting in SETTINGS.values():
        assert set(setting.absent) <= set(FACES), setting.name
        assert all(setting.absent.values()), f"{setting.name}: say why it is absent"


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("face", FACES)
def test_a_setting_reaches_the_face(kit: Kit, name: str, face: str) -> None:
    """Or the declaration says why it does not, and then it really does not."""
    setting = SETTINGS[name]
    if face in setting.absent:
        with pytest.raises((KeyError, AttributeError, AssertionError, RequestError)):
            assert WALK[face](kit, setting, example(setting)) == example(setting)
        return
    value = setting.checked(example(setting))
    assert WALK[face](kit, setting, value) == value


@pytest.mark.parametrize("name", SETTINGS)
def test_generate_has_a_keyword(kit: Kit, name: str) -> None:
    setting = SETTINGS[name]
    parameter = inspect.signature(Pipeline.generate).parameters[name]
    expected = inspect.Parameter.empty if name == "prompt" else BATCH.default if name == "batch" else setting.neutral
    assert parameter.default == expected
    value = setting.checked(example(setting))
    assert getattr(request_of(kit, setting, value), name) == value


@pytest.mark.parametrize("name", SETTINGS)
def test_the_job_route_documents_it(kit: Kit, name: str) -> None:
    """/api/jobs and /api/grid: with range, default and help."""
    setting = SETTINGS[name]
    schemas = create_app(kit.service).openapi()["components"]["schemas"]
    for order in ("Draw", "DrawGrid"):
        schema = schemas[order]["properties"][setting.order]
        assert schema["description"] == setting.summary
        assert schema.get("exclusiveMinimum" if setting.excludes_low else "minimum") == setting.low
        assert schema.get("maximum") == (setting.high and float(setting.high))  # as FastAPI writes it
        assert schema.get("default") == (1 if setting is BATCH else setting.neutral)


@pytest.mark.parametrize("name", SETTINGS)
def test_its_box_on_the_page(kit: Kit, name: str, page_boxes: dict[str, list[Any]]) -> None:
    setting = SETTINGS[name]
    box = page_boxes[setting.label][0]  # the first tab's
    if setting.choices:
        assert [choice for _, choice in box.choices if choice] == list(setting.choices)
        assert box.value == (setting.default or "")
    elif setting.slider:
        low, high, step = setting.slider
        width, height = kit.pipe.model.default_size
        default = {"width": width, "height": height}.get(name, setting.default)
        assert (box.minimum, box.maximum, box.step, box.value) == (low, high, step, default)
        assert (setting.low or 0) <= low < high <= (setting.high or high)


@pytest.fixture(scope="module")
def page_boxes(kit: Kit) -> dict[str, list[Any]]:
    boxes: dict[str, list[Any]] = {}
    for block in build_page(kit.service).blocks.values():
        boxes.setdefault(getattr(block, "label", None) or "", []).append(block)
    return boxes


# values


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 2.5, "steps is 2.5; give a whole number"),
        ("steps", True, "steps is True; give a whole number"),
        ("steps", 0, "steps is 0; give 1 to 1000"),
        ("width", 100, "width is 100; give a multiple of 8 from 64 to 4096, such as 96"),
        ("guidance_scale", "much", "guidance_scale is 'much'; give a number of 0 or more"),
        ("guidance_scale", None, "guidance_scale is None; give a number of 0 or more"),
        ("strength", 0, "strength is 0; give a number above 0, at most 1"),
        ("timesteps", [], "timesteps is empty; give at least one number"),
        ("timesteps", ["a"], "timesteps has a; give numbers"),
        ("scheduler", "eular", 'scheduler is "eular"; did you mean "euler"?'),
        ("spacing", "?", 'spacing is "?"; choose from leading, trailing, linspace, karras, exponential'),
        ("prompt", 5, "prompt is 5; give text"),
    ],
)
def test_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        Settings(**{"prompt": "a fox", name: value})
    assert str(caught.value) == message


def test_numbers_become_pythons_own() -> None:
    settings = Settings(
        prompt="a fox", steps=np.int64(4), guidance_scale=np.float32(2), timesteps=tuple(np.array([999, 499.5]))
    )
    assert json.dumps([settings.steps, settings.guidance_scale, settings.timesteps]) == "[4, 2.0, [999, 499.5]]"


OLD_RECORD: dict[str, Any] = {
    "request": {
        "prompt": "a fox",
        "negative_prompt": None,
        "blend": {"mode": "sum", "items": []},
        "width": 64,
        "height": 72,
        "steps": 3,
        "guidance_scale": 4.0,
        "seed": 5,
        "scheduler": "lcm",
        "spacing": None,
        "batch": 2,
        "strength": None,
        "timesteps": [999, 749.5, 499],
    },
    "seed": 6,
    "adapters": [],
    "model": "demo",
    "device": "CPU",
    "runtime": "live",
    "precision": None,
    "max_rank": None,
    "lenient": False,
    "versions": {"lorablend": "0.1.0"},
}


def test_records_and_jobs_from_before_the_declaration() -> None:
    """They are read, and written again as they were, but for settings that are newer."""
    record = Record.from_json(json.dumps(OLD_RECORD))
    written = json.loads(record.to_json())
    newer = written["request"].keys() - OLD_RECORD["request"].keys()
    assert {name: written["request"].pop(name) for name in newer} == {name: SETTINGS[name].neutral for name in newer}
    assert written == OLD_RECORD
    assert record.request == Request(
        prompt="a fox",
        negative_prompt=None,
        blend={"mode": "sum", "items": []},
        width=64,
        height=72,
        steps=3,
        guidance_scale=4.0,
        seed=5,
        scheduler="lcm",
        spacing=None,
        batch=2,
        strength=None,
        timesteps=(999, 749.5, 499),
    )
    row = {"prompt": "x", "blend": [["ink", 0.5]], "steps": 2, "seed": 7, "count": 2, "timesteps": [999.0, 499.0]}
    draw = Draw.model_validate(row)
    assert json.loads(draw.model_dump_json(exclude_defaults=True)) == row


def test_faces_spell_no_default(request: pytest.FixtureRequest) -> None:
    """The ranges and defaults of settings are not written into the faces."""
    root = Path(str(request.config.rootpath))
    spelled = (str(Settings.guidance_scale), str(SETTINGS["strength"].default))
    for folder in ("app/orders", "app/cli", "app/grid", "app/page", "app/pictures", "app/rest"):
        for file in (root / folder).glob("*.py"):
            found = [
                word for word in spelled if re.search(rf"[ =(]{re.escape(word)}\b", file.read_text(encoding="utf-8"))
            ]
            assert not found, f"{file} spells {found}"

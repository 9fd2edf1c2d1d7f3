"""Models that are made as jobs: drawn with at once, found after a restart, and nothing else of the machine."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lorablend.adapters.errors import (
    BlendError,
    LorablendError,
    MissingExtraError,
    ModelError,
    RequestError,
    ResourceError,
)
from lorablend.app.jobs.jobs import Job
from lorablend.app.orders.build import Bake, Compress, Convert
from lorablend.app.orders.draw import Draw
from lorablend.app.pictures.png import open_picture
from lorablend.app.service import Service
from lorablend.convert import extras
from lorablend.engine import ModelFolder

FAST: dict[str, Any] = {"prompt": "a fox", "steps": 2, "width": 64, "height": 64, "seed": 7}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models") / "data"


@pytest.fixture(scope="module")
def service(sdxl_model: Path, lora_dir: Path, data: Path) -> Iterator[Service]:
    service = Service(data, {"small": sdxl_model}, lora_dir, precision="f32")
    service.start()
    yield service
    service.close()


def bake(service: Service, name: str, blend: Any, **fields: Any) -> Job:
    asked = Bake.model_validate({"name": name, "blend": blend, **fields})
    return service.building.bake(asked)


def convert(service: Service, source: str, name: str = "new", **fields: Any) -> Job:
    return service.building.convert(Convert.model_validate({"source": source, "name": name, **fields}))


def drawn(service: Service, **fields: Any) -> bytes:
    job = service.wait(service.draw(Draw.model_validate({**FAST, **fields})))
    assert job.state == "done", job.reason
    return open_picture(service.gallery.path(job.result["pictures"][0]["file"])).tobytes()


@pytest.mark.slow
def test_bake_and_restart_and_remove(service: Service, sdxl_model: Path, lora_dir: Path, data: Path) -> None:
    blend = {"items": [{"adapter": "ink", "weight": 0.8}, {"adapter": "neon glow", "weight": -0.4}]}
    job = service.wait(bake(service, "inked one", blend))
    assert job.state == "done", job.reason
    assert job.result == {"model": "inked one"}
    plain = drawn(service)
    blended = drawn(service, blend=blend)
    baked = drawn(service, model="inked one")
    assert baked != plain
    apart = [abs(a - b) for a, b in zip(baked, blended, strict=True)]
    assert max(apart) <= 1
    (form,) = [form for form in service.building.models() if form["own"]]
    assert form["name"] == "inked one"
    assert form["size"] > 1e6
    assert form["origin"].endswith("fp32 · with ink 0.8, neon glow -0.4")
    assert {path.name for path in (data / "models").iterdir()} == {"inked one", ".lock"}

    # The next server finds it, leaves out what is broken, and what a killed job left is gone.
    shutil.copytree(sdxl_model, data / "models" / "broken")
    (data / "models" / "broken" / "unet" / "openvino_model.bin").unlink()
    (data / "models" / ".half.0123").mkdir()
    (data / "models" / ".7.json").write_text("{}")
    shutil.copytree(sdxl_model, data / "models" / "small")
    second = Service(data.parent / "second", {"small": sdxl_model}, lora_dir)
    assert second.models.names == ["small"]
    second.close()
    shutil.copytree(data / "models", data.parent / "third" / "models")
    third = Service(data.parent / "third", {"small": sdxl_model}, lora_dir)
    assert third.models.names == ["small", "inked one"]
    assert third.models.folder() == sdxl_model
    assert {path.name for path in (data.parent / "third" / "models").iterdir()} == {
        *("inked one", "broken", "small", ".lock")
    }
    errors = {form["name"]: form["error"] for form in third.building.models()}
    assert errors.keys() == {"small", "inked one", "broken"}
    assert "has no unet/openvino_model.bin" in errors["broken"]
    needed = third.draw(Draw.model_validate({**FAST, "model": "inked one"}))
    with pytest.raises(RequestError, match=f"job {needed.number} needs the model inked one; wait for it, or cancel it"):
        third.building.remove("inked one")
    third.jobs.cancel(needed.id)
    third.building.remove("inked one")
    third.building.remove("broken")
    assert third.models.names == ["small"]
    assert {path.name for path in (data.parent / "third" / "models").iterdir()} == {"small", ".lock"}
    with pytest.raises(RequestError, match="the model small was not made here"):
        third.building.remove("small")
    third.close()


@pytest.mark.slow
def test_convert(service: Service, sdxl_source: Path) -> None:
    """Of a folder that lies beside the server's model."""
    assert sdxl_source.name in service.building.sources.names()
    job = convert(service, sdxl_source.name, "half", weights="fp16")
    stages = [seen.progress for seen in service.jobs.watch(job.id) if seen.progress]
    job = service.jobs.get(job.id)
    assert job.state == "done", job.reason
    assert {"working on unet", "working on vae"} & {progress.text for progress in stages}
    assert {progress.steps for progress in stages} <= {1, 5}
    model = ModelFolder(service.models.folder("half"))
    assert json.loads((model.path / "lorablend.json").read_text())["source"] == sdxl_source.name
    assert drawn(service, model="half")

    # A compressed copy is smaller, and is not compressed again.
    job = service.wait(service.building.compress(Compress(name="small one", model="half")))
    assert job.state == "done", job.reason
    sizes = {form["name"]: form["size"] for form in service.building.models()}
    assert sizes["small one"] < 0.7 * sizes["half"]
    assert drawn(service, model="small one")
    with pytest.raises(RequestError, match="small one already has its weights in 8 bits"):
        service.building.compress(Compress(name="smaller", model="small one"))


@pytest.mark.slow
def test_a_stopped_conversion_leaves_nothing(service: Service, sdxl_source: Path, data: Path) -> None:
    job = convert(service, sdxl_source.name, "stopped")
    for seen in service.jobs.watch(job.id):
        if seen.progress and seen.progress.text == "working on unet":
            service.jobs.cancel(job.id)
    assert service.jobs.get(job.id).state == "cancelled"
    assert not [path for path in (data / "models").glob("*") if "stopped" in path.name]
    assert "stopped" not in service.models.names


HOSTILE = ["", ".", "..", "../x", "a/b", "a\\b", "/etc", ".hidden", "CON", "a:b", "x ", "a\nb", "\x00", "x" * 181, "x<"]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_a_path(service: Service, sdxl_source: Path, name: str) -> None:
    for submit in (
        lambda: bake(service, name, [["ink", 1]]),
        lambda: convert(service, sdxl_source.name, name),
    ):
        with pytest.raises((RequestError, ValueError)):
            submit()
    if name != "a/b":  # an id on the Hub
        with pytest.raises((RequestError, ValueError)):
            convert(service, name)
    with pytest.raises(RequestError):
        service.building.remove(name)


def test_no_source_is_a_path(
    service: Service, sdxl_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sdxl_source.parent.parent)
    relative = f"{sdxl_source.parent.name}/{sdxl_source.name}"
    assert Path(relative).is_dir()
    for source in (str(sdxl_source), relative, f"./{relative}", "a/b/c", "../x", "hf:a/b", "a/b.safetensors", "~/x"):
        with pytest.raises(RequestError):
            convert(service, source)
    assert not [job for job in service.jobs.find() if job.request.get("name") == "new"]


def test_names_that_are_taken(service: Service) -> None:
    for name in ("small", "Small"):
        with pytest.raises(RequestError, match=f"there is a model {name} already"):
            bake(service, name, [["ink", 1]])


WRONG: list[tuple[dict[str, Any], type[LorablendError], str]] = [
    ({"blend": []}, RequestError, "there is nothing to bake; give a blend with at least one adapter"),
    ({"blend": [["inc", 1]]}, BlendError, "did you mean ink?"),
    ({"blend": [["/etc/passwd", 1]]}, BlendError, "is a path"),
    ({"blend": [{"adapter": "ink", "schedule": {"stop": 3}}]}, BlendError, "ink has a schedule, which weights cannot"),
    ({"blend": {"mode": "switch", "items": [["ink", 1]]}}, BlendError, "mode is switch, which weights cannot hold"),
    ({"blend": [["ink", 1]], "model": "large"}, RequestError, "there is no model 'large'"),
]


@pytest.mark.parametrize(("fields", "error", "text"), WRONG, ids=[case[2][:30] for case in WRONG])
def test_what_is_wrong_is_said_at_once(
    service: Service, fields: dict[str, Any], error: type[LorablendError], text: str
) -> None:
    with pytest.raises(error) as caught:
        bake(service, "never", **fields)
    assert text in str(caught.value)
    assert not [job for job in service.jobs.find() if job.request.get("name") == "never"]


def test_sources_that_cannot_be_converted(service: Service, data: Path) -> None:
    (data / "sources" / "empty").mkdir(parents=True)
    (data / "sources" / "empty" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    (data / "sources" / "page.safetensors").write_text("<html>")
    for source, fields, text in (
        ("empty", {}, "empty is a FluxPipeline"),
        ("page.safetensors", {}, "page.safetensors is not a readable safetensors file"),
        ("page.safetensors", {"config": "nosuch"}, "nosuch is not a Hugging Face id"),
        ("owner/name", {"config": "empty"}, "config is for a .safetensors checkpoint; owner/name has its own"),
        (
            "nosuch",
            {},
            "nosuch is not a Hugging Face id (owner/name) or a source on the server; there are empty",
        ),
    ):
        with pytest.raises((ModelError, RequestError)) as caught:
            convert(service, source, **fields)
        assert str(caught.value).startswith(text)
    shutil.rmtree(data / "sources")


def test_no_room_and_no_extra(service: Service, sdxl_source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(psutil, "disk_usage", lambda _path: type("Usage", (), {"free": 3e6}))
        with pytest.raises(ResourceError, match=r"new needs about 0\.\d GB of disk, 0\.0 GB is free; remove a model"):
            convert(service, sdxl_source.name)
        with pytest.raises(ResourceError, match="inked needs about"):
            bake(service, "inked", [["ink", 1]])
    with monkeypatch.context() as patch:
        patch.setattr(extras, "_is_installed", lambda name: name != "nncf")
        with pytest.raises(MissingExtraError, match=r"convert needs nncf; run: pip install"):
            convert(service, sdxl_source.name)


def test_models_are_listed_while_others_come_and_go(service: Service, sdxl_model: Path, tmp_path: Path) -> None:
    """The page looks once a second; a model that is removed just then is not an error."""
    folder = tmp_path / "short-lived"
    shutil.copytree(sdxl_model, folder)
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            service.models.add("short-lived", folder)
            service.models.remove("short-lived")

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        seen = [{form["name"] for form in service.building.models()} for _ in range(300)]
    finally:
        over.set()
        thread.join()
    assert all("small" in names for names in seen)
    service.models.add("short-lived", folder)
    shutil.rmtree(folder)  # by hand, behind our back
    assert "short-lived" not in {form["name"] for form in service.building.models()}
    service.models.remove("short-lived")

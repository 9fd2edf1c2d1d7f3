"""Grids and models over HTTP: asked for, watched, fetched; and no name is a path."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.app.rest.rest_server import FAST, Running, running

FOX = {"prompt": "a fox", "seed": 7, **FAST}


@pytest.fixture(scope="module")
def server(sdxl_model: Path, lora_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    data = tmp_path_factory.mktemp("rest") / "data"
    shutil.copytree(sdxl_model, data / "models" / "mine")
    with running(data, sdxl_model, lora_dir) as server:
        yield server


def test_a_grid(server: Running) -> None:
    answer = server.http.post("/api/grid", json={**FOX, "axes": ["weight:ink=0,1", "guidance=1,3"]})
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"/api/jobs/{job['id']}"
    assert job["kind"] == "grid"
    server.service.wait(server.service.jobs.get(job["id"]))
    done = server.http.get(answer.headers["location"]).json()
    assert done["state"] == "done", done["reason"]
    assert [one["phrases"] for one in done["result"]["pictures"]][1] == ["weight of ink 1", "guidance 1"]
    for one in done["result"]["pictures"]:
        assert server.http.get(one["url"]).content.startswith(b"\x89PNG")
    sheet = server.http.get(done["result"]["sheet_url"])
    assert sheet.headers["content-type"] == "image/png"
    assert "sandbox" in sheet.headers["content-security-policy"]
    assert len(json.loads(Image.open(io.BytesIO(sheet.content)).info["lorablend-grid"])["cells"]) == 4
    listed = server.http.get("/api/sheets").json()["sheets"]
    assert listed[0] == {"file": done["result"]["sheet"], "url": done["result"]["sheet_url"]}
    seconds = [line for line in server.http.get("/metrics").text.splitlines() if line.startswith("lorablend_job_s")]
    assert len(seconds) == 1
    name, value = seconds[0].split()
    assert name == 'lorablend_job_seconds{kind="grid"}'
    assert float(value) == pytest.approx(done["ended"] - done["started"])

    assert server.http.delete(done["result"]["sheet_url"]).status_code == 200
    assert server.http.get("/api/sheets").json()["sheets"] == []
    for method in ("GET", "DELETE"):
        answer = server.http.request(method, done["result"]["sheet_url"])
        assert answer.status_code == 404
        assert answer.json()["detail"].startswith(f"there is no sheet '{done['result']['sheet']}'")
    assert all(server.http.get(one["url"]).status_code == 200 for one in done["result"]["pictures"])


def test_the_models(server: Running) -> None:
    found = server.http.get("/api/models").json()
    small, mine = found["models"]
    assert (small["name"], small["family"], small["default"], small["own"]) == ("small", "sdxl", True, False)
    assert (mine["name"], mine["default"], mine["own"], mine["error"]) == ("mine", False, True, None)
    assert mine["size"] == small["size"] > 1e6
    assert found["free"] > 0
    assert all("/" not in source for source in found["sources"])
    assert str(server.service.data) not in json.dumps(found)


def test_bake_is_queued_and_cancelled(server: Running) -> None:
    answer = server.http.post("/api/models/bake", json={"name": "inked", "blend": [["ink", 1]]})
    assert answer.status_code == 202, answer.text
    again = server.http.post("/api/models/bake", json={"name": "Inked", "blend": [["ink", 1]]})
    assert again.status_code == 400
    assert "makes a model Inked; choose another name" in again.json()["detail"]
    assert server.http.delete(answer.headers["location"]).status_code == 200
    assert server.service.wait(server.service.jobs.get(answer.json()["id"])).state == "cancelled"


def test_remove(server: Running) -> None:
    shutil.copytree(server.service.models.folder("small"), server.service.data / "models" / "old")
    server.service.models.add("old", server.service.data / "models" / "old")
    assert server.http.delete("/api/models/old").status_code == 200
    assert server.http.delete("/api/models/old").status_code == 404
    assert not (server.service.data / "models" / "old").exists()
    kept = server.http.delete("/api/models/small")
    assert kept.status_code == 400
    assert kept.json()["detail"].startswith("the model small was not made here")
    assert server.service.models.folder("small").is_dir()


BAKE = {"name": "new", "blend": [["ink", 1]]}


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("grid", FOX, 422, "axes: Field required"),
        ("grid", {**FOX, "axes": []}, 422, "axes: List should have at least 1 item"),
        ("grid", {**FOX, "axes": ["steps=0"]}, 400, "steps is 0; give 1 to 1000"),
        ("grid", {**FOX, "axes": ["checkpoint=/etc/x.safetensors"]}, 400, '"/etc/x.safetensors" is a path'),
        ("grid", {**FOX, "axes": ["weight:../ink=1"]}, 400, '"../ink" is a path'),
        ("models/bake", {**BAKE, "name": "../up"}, 400, "'../up' cannot be a model's name"),
        ("models/bake", {**BAKE, "name": "small"}, 400, "there is a model small already"),
        ("models/bake", {**BAKE, "blend": []}, 400, "there is nothing to bake"),
        ("models/bake", {**BAKE, "out": "/tmp"}, 422, "out: Extra inputs are not permitted"),
        ("models/convert", {"source": "/etc", "name": "new"}, 400, "/etc is not a Hugging Face id"),
        ("models/convert", {"source": "a/b", "name": "new", "weights": "int2"}, 422, "weights: Input should be"),
        ("models/compress", {"name": "new", "model": "nosuch"}, 400, "there is no model 'nosuch'"),
    ],
)
def test_what_is_wrong(server: Running, path: str, body: Any, status: int, text: str) -> None:
    before = server.service.jobs.find(limit=1)
    answer = server.http.post(f"/api/{path}", json=body)
    assert (answer.status_code, answer.json()["detail"][: len(text)]) == (status, text)
    assert server.service.jobs.find(limit=1) == before


OUTSIDE = [
    "../jobs.sqlite",
    "%2e%2e/jobs.sqlite",
    "..%2fjobs.sqlite",
    "%2fetc%2fpasswd",
    "a%00b",
    "x/../../mine",
    "%ff",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_is_a_path(server: Running, name: str) -> None:
    for method, place in (("GET", "sheets"), ("DELETE", "models")):
        raw = f"/api/{place}/{name}".encode()
        answer = server.http.request(method, httpx.URL(server.url).copy_with(raw_path=raw))
        assert answer.status_code in (404, 405), (method, name)
    assert (server.service.data / "jobs.sqlite").exists()
    assert "mine" in server.service.models.names

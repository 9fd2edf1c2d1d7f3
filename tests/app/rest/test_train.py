"""Data sets and trainings over HTTP; what a training does is in test_training.py."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from lorablend.demo.data_set import draw_data_set
from lorablend.shipped import model_dir
from tests.app.rest.rest_server import Running, running
from tests.train.data.data_files import pattern

ASKED = {"set": "knit", "name": "new", "steps": 2, "batch": 1, "rank": 2, "resolution": 64, "sample_every": 2}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures in the style knit, with captions."""
    draw_data_set(folder := tmp_path_factory.mktemp("drawn") / "knit", 3, style="knit", size=64)
    return folder


@pytest.fixture(scope="module")
def server(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("server")
    (root / "library").mkdir()
    with running(root / "data", model_dir(), root / "library") as server:
        assert send(server, "knit", *sorted(drawn.iterdir())).status_code == 201
        yield server


def send(server: Running, name: str, *files: Path | tuple[str, bytes]) -> httpx.Response:
    sent = [(file.name, file.read_bytes()) if isinstance(file, Path) else file for file in files]
    return server.http.post("/api/train/sets", data={"name": name}, files=[("files", one) for one in sent])


def png(number: int, size: tuple[int, int] = (64, 64)) -> bytes:
    pattern(number, size).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def test_a_set_is_sent_and_looked_through(server: Running) -> None:
    large = png(1, (1400, 1400))
    assert len(large) > 1 << 20  # pictures may be larger than other bodies
    answer = send(server, "a b", ("1.png", large), ("2.png", png(2)), ("2.txt", b"a fox"))
    assert answer.status_code == 201, answer.text
    assert answer.json()["added"] == ["1.png", "2.png"]
    assert answer.json()["notes"][0] == "a folder of pictures; 2 pictures; captions: 1 from .txt files"
    facts = {"name": "a b", "pictures": 2, "captions": 1, "dropped": 0}
    assert facts in server.http.get("/api/train/sets").json()["sets"]
    found = server.http.get("/api/train/sets/a b").json()
    assert found["pictures"][1] == {"file": "2.png", "caption": "a fox", "url": "/api/train/sets/a%20b/pictures/2.png"}
    picture = server.http.get(found["pictures"][0]["url"])
    assert (picture.content, picture.headers["content-type"]) == (large, "image/png")
    assert "sandbox" in picture.headers["content-security-policy"]

    url = found["pictures"][0]["url"]
    assert server.http.put(f"{url}/caption", json={"caption": "a  boat\n"}).json() == {
        "file": "1.png",
        "caption": "a boat",
    }
    assert server.http.delete(url).json() == {**facts, "pictures": 1, "dropped": 1}
    assert server.http.get(url).status_code == 404
    assert server.http.get("/api/train/sets/a b").json()["dropped"] == ["1.png"]
    assert server.http.post(f"{url}/restore").json() == {**facts, "captions": 2}
    sheet = server.http.get("/api/train/sets/a b/mosaic")
    assert Image.open(io.BytesIO(sheet.content)).format == "PNG"
    assert server.http.delete("/api/train/sets/a b").status_code == 200
    assert server.http.delete("/api/train/sets/a b").status_code == 404
    assert [one["name"] for one in server.http.get("/api/train/sets").json()["sets"]] == ["knit"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "", {"set": "knit"}, 422, "name: Field required"),
        ("POST", "", {**ASKED, "out": "/tmp/x"}, 422, "out: Extra inputs are not permitted"),
        ("POST", "", {**ASKED, "set": "nosuch"}, 400, "there is no data set 'nosuch'"),
        ("POST", "check", {**ASKED, "name": "../x"}, 400, "'../x' cannot be an adapter's name"),
        ("POST", "check", {**ASKED, "model": "/etc"}, 400, "'/etc' is not a known base model"),
        ("POST", "check", {**ASKED, "rank": 0}, 400, "rank is 0: input should be greater than or equal to 1"),
        ("GET", "sets/nosuch", None, 404, "there is no data set 'nosuch'; there are"),
        ("GET", "sets/nosuch/mosaic", None, 404, "there is no data set 'nosuch'"),
        ("GET", "sets/knit/mosaic?sheet=1", None, 400, "the data set knit has no sheet 1"),
        ("GET", "sets/knit/pictures/nosuch.png", None, 404, "the data set knit has no picture 'nosuch.png'"),
        ("DELETE", "sets/knit/pictures/nosuch.png", None, 404, "the data set knit has no picture"),
        ("PUT", "sets/knit/pictures/nosuch.png/caption", {"caption": ""}, 404, "the data set knit has no picture"),
        ("PUT", "sets/knit/pictures/000.png/caption", {"caption": 1}, 422, "caption: Input should be a valid string"),
        ("POST", "sets/knit/pictures/000.png/restore", None, 404, "the bin of the data set knit has no picture"),
        ("GET", "runs/nosuch", None, 404, "there is no training 'nosuch'"),
        ("DELETE", "runs/nosuch", None, 404, "there is no training 'nosuch'"),
        ("GET", "runs/nosuch/samples/samples-000002.png", None, 404, "there is no training 'nosuch'"),
        ("POST", "sets", None, 400, "the form has no field name; give the data set one"),
    ],
)  # fmt: skip
def test_what_is_wrong(server: Running, method: str, path: str, body: Any, status: int, text: str) -> None:
    answer = server.http.request(method, f"/api/train/{path}".rstrip("/"), json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"].startswith(text)


def test_what_is_sent_wrong(server: Running, tmp_path: Path) -> None:
    for name, files, text in (
        ("../x", [("1.png", png(1))], "'../x' cannot be a data set's name"),
        ("x", [("1.png", b"<html>")], "1.png is not a picture, or damaged; save it again as PNG or JPEG"),
        ("x", [("1.exe", b"MZ")], "1.exe is not of a kind that is taken"),
        ("x", [], "the form has no file in the field files; send some"),
    ):
        answer = (
            send(server, name, *files) if files else server.http.post("/api/train/sets", files={"name": (None, "x")})
        )
        assert answer.status_code == 400, answer.text
        assert answer.json()["detail"].startswith(text)
    assert send(server, "y", ("../../evil.png", png(1))).json()["added"] == ["evil.png"]
    assert "x" not in [one["name"] for one in server.http.get("/api/train/sets").json()["sets"]]


OUTSIDE = [
    "../jobs.sqlite",
    "../../etc/passwd",
    "%2e%2e",
    "..%2fjobs.sqlite",
    "%2fetc%2fpasswd",
    "..\\x",
    "a%00b",
    "%ff",
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize(
    "place",
    ["sets/{}", "sets/{}/mosaic", "sets/{}/pictures/000.png", "sets/knit/pictures/{}", "runs/{}", "runs/{}/samples/x"],
)
def test_no_name_is_a_path(server: Running, place: str, name: str) -> None:
    server.refuses(f"/api/train/{place.format(name)}")


@pytest.mark.slow
def test_a_training_from_its_check_to_its_samples(server: Running) -> None:
    lines = server.http.post("/api/train/check", json=ASKED).json()["lines"]
    assert "training: 2 steps, 0.7 epochs" in lines
    asked = server.http.post("/api/train", json=ASKED)
    assert asked.status_code == 202, asked.text
    waiting = server.http.get("/api/train/runs/new").json()
    assert waiting["state"] in ("queued", "running")
    assert waiting["losses"] == []
    busy = server.http.delete("/api/train/runs/new")
    assert busy.status_code == 409
    assert busy.json()["detail"].startswith("new is being trained by job")
    again = server.http.post("/api/train", json=ASKED)
    assert again.status_code == 400
    assert again.json()["detail"].startswith("new is being trained by job")
    with server.http.stream("GET", f"{asked.headers['location']}/events") as answer:
        seen = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert seen[-1]["state"] == "done", seen[-1]
    assert seen[-1]["kind"] == "train"
    assert seen[-1]["result"].keys() == {"adapter", "steps", "loss"}
    assert [one["progress"]["steps"] for one in seen if one["progress"]][-1] == 2
    found = server.http.get("/api/train/runs/new").json()
    assert [loss["step"] for loss in found["losses"]] == [1, 2]
    listed = {"name": "new", "state": "done", "steps": 2, "resumable": None}
    assert server.http.get("/api/train/runs").json() == {"runs": [listed]}
    assert found.items() >= listed.items()
    (sheet,) = found["samples"]
    assert sheet["step"] == 2
    assert server.http.get(sheet["url"]).content.startswith(b"\x89PNG")
    assert server.http.delete("/api/train/runs/new").status_code == 200
    assert [path.name for path in (server.service.data / "trainings").iterdir()] == ["lock"]
    for method, path in (("GET", "new"), ("DELETE", "new"), ("GET", "new/samples/samples-000002.png")):
        answer = server.http.request(method, f"/api/train/runs/{path}")
        assert answer.status_code == 404
        assert answer.json()["detail"] == "there is no training 'new'"
    assert server.http.get("/api/adapters/new").json()["base_model"] == "sdxl"

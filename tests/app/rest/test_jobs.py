"""Our own interface: jobs and their events, gallery, adapters, uploads, health."""

from __future__ import annotations

import base64
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from PIL import Image

from lorablend.app.jobs.jobs import STATES
from lorablend.app.library.download import OFFLINE
from lorablend.app.pictures.png import encode, texts_of
from tests.app.file_server import serving
from tests.app.pictures.metadata.written import A1111, png_file
from tests.app.rest.rest_server import FAST, Running, running

FOX = {"prompt": "a fox", **FAST}


@pytest.fixture(scope="module")
def server(sdxl_model: Path, lora_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    adapters = tmp_path_factory.mktemp("copies") / "adapters"
    shutil.copytree(lora_dir, adapters)
    (adapters / "broken.safetensors").write_text("<html>")
    (adapters / "ink.preview.png").write_bytes(png(np.zeros((8, 8, 3), np.uint8)))
    with running(tmp_path_factory.mktemp("data"), sdxl_model, adapters, limit=4) as server:
        yield server


def png(pixels: np.ndarray) -> bytes:
    return encode(Image.fromarray(pixels), "png", {})


def events(answer: httpx.Response) -> Iterator[Any]:
    for line in answer.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def drawn(server: Running, **fields: Any) -> Any:
    """The job when it has ended, as its stream says."""
    job = server.http.post("/api/jobs", json={**FOX, **fields}).json()
    with server.http.stream("GET", f"/api/jobs/{job['id']}/events") as answer:
        return list(events(answer))[-1]


def test_a_job_from_its_queueing_to_its_pictures(server: Running) -> None:
    asked = server.http.post("/api/jobs", json={**FOX, "steps": 20, "seed": 7, "count": 2, "blend": [["ink", 0.5]]})
    assert asked.status_code == 202
    job = asked.json()
    assert job["state"] in ("queued", "running")
    assert asked.headers["location"] == f"/api/jobs/{job['id']}"
    with server.http.stream("GET", f"{asked.headers['location']}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        seen = list(events(answer))
    for last, status in (("running", 200), ("done", 204)):  # as a browser comes back, until it is told that it is over
        again = server.http.get(f"{asked.headers['location']}/events", headers={"Last-Event-ID": last})
        assert again.status_code == status
        assert (again.text.startswith("event: job\ndata: {") and again.text.endswith("}\nid: done\n\n")) == (
            status == 200
        )
    assert [one["state"] for one in seen].count("done") == 1
    assert seen[-1]["state"] == "done"
    previews = [one["progress"]["preview"] for one in seen if (one["progress"] or {}).get("preview")]
    assert previews
    head, _, data = previews[0].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")
    assert server.http.get(f"/api/jobs/{job['id']}").json() == seen[-1]
    for picture, seed in zip(seen[-1]["result"]["pictures"], (7, 8), strict=True):
        content = server.http.get(picture["url"]).content
        found = texts_of(Image.open(io.BytesIO(content)), "").record
        assert found is not None
        assert (found.seed, found.adapters[0].name) == (seed, "ink")


def test_the_list(server: Running) -> None:
    jobs = [drawn(server, seed=seed) for seed in (1, 2, 3)]
    listed = server.http.get("/api/jobs", params={"limit": 2}).json()["jobs"]
    assert [job["id"] for job in listed] == [jobs[2]["id"], jobs[1]["id"]]
    older = server.http.get("/api/jobs", params={"before": jobs[1]["number"], "limit": 1}).json()["jobs"]
    assert [job["id"] for job in older] == [jobs[0]["id"]]
    assert server.http.get("/api/jobs", params={"state": "running"}).json() == {"jobs": []}
    for nobodys in ({"client": "somebody"}, {"kind": "train"}):
        assert server.http.get("/api/jobs", params=nobodys).json() == {"jobs": []}
    assert len(server.http.get("/api/jobs", params={"kind": "draw", "limit": 3}).json()["jobs"]) == 3
    assert server.http.get("/api/jobs", params={"state": "odd"}).status_code == 422


def test_cancel(server: Running) -> None:
    running_ = server.long_job()
    queued = server.http.post("/api/jobs", json=FOX).json()
    assert server.http.post(f"/api/jobs/{queued['id']}/cancel").json()["state"] == "cancelled"
    assert server.http.delete(f"/api/jobs/{running_.id}").status_code == 200
    assert server.service.wait(running_).state == "cancelled"
    assert server.http.delete(f"/api/jobs/{running_.id}").json()["state"] == "cancelled"


def test_a_full_queue(server: Running) -> None:
    jobs = [server.long_job().id]
    try:
        answers = [server.http.post("/api/jobs", json=FOX) for _ in range(5)]
        jobs += [answer.json()["id"] for answer in answers[:4]]
        assert [answer.status_code for answer in answers] == [202] * 4 + [429]
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert answers[-1].json()["detail"].startswith("4 of your draw jobs are waiting, which is the limit")
    finally:
        for job in reversed(jobs):
            server.service.jobs.cancel(job)
        server.service.wait(server.service.jobs.get(jobs[0]))


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "jobs/nosuch", None, 404, "there is no job 'nosuch'; /api/jobs lists all jobs"),
        ("GET", "jobs/nosuch/events", None, 404, "there is no job 'nosuch'"),
        ("POST", "jobs/nosuch/cancel", None, 404, "there is no job 'nosuch'"),
        ("POST", "jobs", {"prompt": 1}, 422, "prompt: Input should be a valid string, not '1'"),
        ("POST", "jobs", {}, 422, "prompt: Field required"),
        ("POST", "jobs", {**FOX, "prompts": 1}, 422, "prompts: Extra inputs are not permitted, not '1'"),
        ("POST", "jobs", {**FOX, "width": 65}, 400, "width is 65; give a multiple of 8"),
        ("POST", "jobs", {**FOX, "blend": [["../ink", 1]]}, 400, "is a path"),
        ("POST", "jobs", {**FOX, "image": "0" * 64}, 400, "there is no uploaded picture"),
        ("GET", "gallery/nosuch.png", None, 404, "the gallery has no picture 'nosuch.png'"),
        ("GET", "gallery/nosuch.png/picture", None, 404, "the gallery has no picture 'nosuch.png'"),
        ("POST", "gallery/nosuch.png/restore", None, 404, "the bin has no picture 'nosuch.png'"),
        ("POST", "gallery/nosuch.png/mark", {"favourite": True}, 404, "the gallery has no picture"),
        ("DELETE", "gallery/nosuch.png", None, 404, "the gallery has no picture"),
        ("GET", "gallery/zip?file=nosuch.png", None, 404, "the gallery has no picture"),
        ("GET", "gallery?after=nosuch.png", None, 404, "the gallery has no picture"),
        ("GET", "adapters/nosuch", None, 404, "there is no adapter 'nosuch'"),
        ("POST", "adapters/nosuch/mark", {"favourite": True}, 404, "there is no adapter 'nosuch'"),
        ("GET", "adapters/neon glow/preview", None, 404, "the adapter 'neon glow' has no preview"),
        ("GET", "nosuch", None, 404, "/api/nosuch does not exist; /openapi.json lists all paths"),
        ("PUT", "jobs", None, 405, "/api/jobs does not take PUT; /openapi.json lists all paths"),
    ],
)
def test_what_is_wrong(server: Running, method: str, path: str, body: Any, status: int, text: str) -> None:
    answer = server.http.request(method, f"/api/{path}", json=body)
    assert answer.status_code == status
    assert answer.json()["detail"].startswith(text) or text == "is a path"
    assert text in answer.json()["detail"]


def test_a_tag_in_a_request_names_no_path(server: Running, tmp_path: Path, lora_dir: Path) -> None:
    """What is there and could be drawn with must be refused too, as in a prompt."""
    own, mask = tmp_path / "own.safetensors", tmp_path / "mask.png"
    shutil.copyfile(lora_dir / "ink.safetensors", own)
    mask.write_bytes(png(np.zeros((8, 8, 3), np.uint8)))
    axes = ["seed=1,2"]
    for tag in (f"<lora:{own}:1>", f"<lora:ink:1:mask={mask}>"):
        for blend in ([tag], {"items": [tag]}, [f"<lora:neon glow> {tag}"]):
            asked = {**FOX, "blend": blend}
            bake = {"blend": blend, "name": "baked"}
            for path, body in (("jobs", asked), ("grid", {**asked, "axes": axes}), ("models/bake", bake)):
                answer = server.http.post(f"/api/{path}", json=body)
                assert answer.status_code == 400, (path, blend, answer.text)
                assert "is a path; in a prompt, give a name" in answer.json()["detail"]
    assert drawn(server, blend=["<lora:ink:0.5> <lora:neon glow:0.5>", "<blend:composite>"])["state"] == "done"


def test_the_gallery(server: Running) -> None:
    for seed, prompt in ((11, "a red boat"), (12, "a red house"), (13, "a green boat")):
        drawn(server, seed=seed, prompt=prompt)
    find = lambda **query: server.http.get("/api/gallery", params=query).json()["pictures"]  # noqa: E731
    assert [one["seed"] for one in find(search="boat")] == [13, 11]
    (house,) = find(search="red house")
    assert [one["seed"] for one in find(limit=1, after=house["file"])] == [11]
    (boat,) = find(seed=11)
    settings = server.http.get(f"/api/gallery/{boat['file']}").json()
    assert settings["record"]["request"]["prompt"] == settings["prompt"] == "a red boat"
    picture = server.http.get(boat["url"])
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in picture.headers["content-security-policy"]
    assert server.http.post(f"/api/gallery/{boat['file']}/mark", json={"favourite": True}).json()["favourite"]
    assert [one["seed"] for one in find(favourite=True)] == [11]
    names = [boat["file"], house["file"], boat["file"]]
    archive = server.http.get("/api/gallery/zip", params={"file": names})
    with zipfile.ZipFile(io.BytesIO(archive.content)) as found:
        assert found.namelist() == names[:2]
        assert found.read(boat["file"]) == picture.content
    assert server.http.post(f"/api/gallery/{boat['file']}/delete").status_code == 200
    assert server.http.get(boat["url"]).status_code == 404
    assert server.http.get("/api/gallery/bin").json() == {"files": [boat["file"]]}
    assert server.http.post(f"/api/gallery/{boat['file']}/restore").json()["seed"] == 11
    assert server.http.get(boat["url"]).content == picture.content


def test_a_picture_with_a_name_of_its_own_and_one_that_is_gone(server: Running) -> None:
    (file,) = (one["file"] for one in drawn(server, seed=21)["result"]["pictures"])
    path = server.service.gallery.path(file)
    other = path.with_name("雪 #1?.png")
    shutil.copyfile(path, other)
    server.http.post("/api/gallery/scan")
    (found,) = (one for one in server.http.get("/api/gallery").json()["pictures"] if one["file"].endswith(other.name))
    assert found["url"].endswith("/%E9%9B%AA%20%231%3F.png/picture")
    answer = server.http.get(found["url"])
    assert answer.content == path.read_bytes()
    assert answer.headers["content-disposition"] == "inline; filename*=UTF-8''%E9%9B%AA%20%231%3F.png"
    path.unlink()
    gone = f"/api/gallery/{file}"
    for method, place in (("GET", gone), ("GET", f"{gone}/picture"), ("DELETE", gone)):
        answer = server.http.request(method, place)
        assert answer.status_code == 404, place
        assert "is gone from the disk" in answer.json()["detail"]
    assert server.http.get("/api/gallery/zip", params={"file": file}).status_code == 404
    assert server.http.get("/api/gallery", params={"after": file}).status_code == 200


OUTSIDE = ["../jobs.sqlite", "../../etc/passwd", "/etc/passwd", "bin/../../jobs.sqlite", "%2e%2e/jobs.sqlite"]
OUTSIDE += ["..%2fjobs.sqlite", "%2fetc%2fpasswd", "..\\jobs.sqlite", "a%00b", "%ff", "x/../../../../etc/passwd"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize(
    "place", ["gallery/{}", "gallery/{}/picture", "adapters/{}", "adapters/{}/preview", "jobs/{}", "jobs/{}/events"]
)
def test_no_name_is_a_path(server: Running, place: str, name: str) -> None:
    server.refuses(f"/api/{place.format(name)}")


def test_adapters(server: Running) -> None:
    listed = {one["name"]: one for one in server.http.get("/api/adapters").json()["adapters"]}
    assert set(listed) >= {"ink", "neon glow", "broken"}
    ink = listed["ink"]
    assert (ink["base_model"], ink["algorithms"], ink["trigger_words"]) == ("sdxl", ["lora"], ["ink drawing"])
    assert ink["ranks"]
    assert ink["size"] > 0
    assert listed["broken"]["error"]
    assert str(server.service.models.lora_dir) not in json.dumps(listed)
    found = server.http.get("/api/adapters", params={"search": "INK draw"}).json()["adapters"]
    assert [one["name"] for one in found] == ["ink"]
    assert server.http.get("/api/adapters/ink").json() == ink
    preview = server.http.get("/api/adapters/ink/preview")
    assert preview.headers["content-type"] == "image/png"
    assert preview.content.startswith(b"\x89PNG")


def test_an_adapter_is_sent_and_drawn_with(server: Running, lora_dir: Path) -> None:
    own = bytearray((lora_dir / "neon glow.safetensors").read_bytes())
    own[-1] ^= 1  # another file: one that is here already is found and left as it is

    def send(file: str, content: bytes, **data: str) -> httpx.Response:
        return server.http.post("/api/adapters", files={"file": (file, content)}, data=data)

    answer = send("../../sent.safetensors", bytes(own))
    assert answer.status_code == 201, answer.text
    assert answer.json()["name"] == "sent"
    assert drawn(server, blend=[["sent", 0.5]])["state"] == "done"
    assert send("other.safetensors", b"<html>").status_code == 400
    pickle = send("model.ckpt", b"\x80\x02")
    assert pickle.status_code == 400
    assert pickle.json()["detail"] == "'model.ckpt' is not a .safetensors file; only those are taken"
    own[-1] ^= 2
    assert send("x.safetensors", bytes(own), name="../outside").status_code == 400
    assert server.http.post("/api/adapters").status_code == 400
    assert {path.name for path in server.service.data.iterdir()} <= {
        "jobs.sqlite",
        "jobs.sqlite-wal",
        "jobs.sqlite-shm",
        "gallery.sqlite",
        "gallery.sqlite-wal",
        "gallery.sqlite-shm",
        "pictures",
        "uploads",
    }


def test_an_adapter_is_marked(server: Running) -> None:
    """Favourite and tags, each without the other; they are searched."""
    mark = lambda **marks: server.http.post("/api/adapters/ink/mark", json=marks)  # noqa: E731
    assert mark(tags=["pen work", "black"]).json()["tags"] == ["pen work", "black"]
    assert (marked := mark(favourite=True)).json()["favourite"]
    assert marked.json()["tags"] == ["pen work", "black"]
    found = server.http.get("/api/adapters", params={"search": "black pen"}).json()["adapters"]
    assert found == [marked.json()]
    refused = mark(tags=["two\nlines"])
    assert refused.status_code == 400
    assert refused.json()["detail"] == "tag 'two\\nlines': give 1 to 100 characters on one line"
    assert mark(tags=[], favourite=False).json()["tags"] == []


def test_an_adapter_is_downloaded(server: Running, lora_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a job, which tells others nothing of a token in the address."""
    own = bytearray((lora_dir / "neon glow.safetensors").read_bytes())
    own[-1] ^= 4
    ask = lambda **fields: server.http.post("/api/adapters/download", json=fields)  # noqa: E731
    with serving(files={"/far.safetensors": bytes(own)}) as files:
        answer = ask(source=f"{files.url}/far.safetensors?token=secret", name="from afar")
        assert answer.status_code == 202, answer.text
        job = server.service.wait(server.service.jobs.get(answer.json()["id"]))
    done = server.http.get(answer.headers["location"])
    assert (done.json()["state"], done.json()["result"]) == ("done", {"adapter": "from afar"}), job.reason
    assert "secret" not in done.text
    assert server.http.get("/api/adapters/from afar").status_code == 200
    path = ask(source="/etc/passwd")
    assert path.status_code == 400
    assert path.json()["detail"] == '"/etc/passwd" is not an address; give a file, https://…, or hf:owner/repo'
    nothing = ask(source="hf:owner")
    assert nothing.status_code == 400
    assert nothing.json()["detail"] == "hf:owner is not a repository; write hf:owner/name or hf:owner/name/file"
    monkeypatch.setenv(OFFLINE, "1")
    offline = ask(source="hf:owner/repo")
    assert offline.status_code == 400
    assert offline.json()["detail"] == "downloads are turned off; start without --offline"


def test_from_an_uploaded_picture(server: Running) -> None:
    start = png(np.full((64, 128, 3), 99, np.uint8))
    raw = server.http.post("/api/uploads", content=start, headers={"Content-Type": "image/png"})
    form = server.http.post("/api/uploads", files={"file": ("start.png", start)})
    assert raw.status_code == form.status_code == 201
    assert raw.json() == form.json() == {"name": raw.json()["name"], "width": 128, "height": 64}
    job = drawn(server, image=raw.json()["name"], strength=0.5, width=128)
    assert job["state"] == "done"
    assert server.http.post("/api/uploads", content=b"<svg>").status_code == 400


def test_a_picture_is_read(server: Running, lora_dir: Path) -> None:
    """As the body or in a form; the settings can be sent back as an order."""
    content = png_file({"parameters": A1111.replace("Steps: 20", "Steps: 2000").replace("512x768", "64x64")})
    raw = server.http.post("/api/pictures/read", content=content, headers={"Content-Type": "image/png"})
    form = server.http.post("/api/pictures/read", files={"file": ("boat.png", content)})
    assert raw.status_code == form.status_code == 200, raw.text
    assert raw.json() == form.json()
    assert raw.json() == {
        "program": "AUTOMATIC1111 (or its form)",
        "settings": {
            "prompt": "a red boat",
            "negative_prompt": "blurry",
            "scheduler": "euler_a",
            "guidance_scale": 6.0,
            "seed": 12,
            "width": 64,
            "height": 64,
            "blend": {"items": [{"adapter": "ink", "weight": 0.8}]},
        },
        "missing": [
            'steps "2000" is not 1 to 1000; it is left out',
            f"the model foo is not here; {server.service.models.names[0]} is used",
        ],
    }
    job = server.http.post("/api/jobs", json=raw.json()["settings"] | {"steps": 1})
    assert job.status_code == 202, job.text
    assert server.service.wait(server.service.jobs.get(job.json()["id"])).state == "done"
    silent = server.http.post("/api/pictures/read", files={"file": ("plain.png", png_file({}))})
    assert (silent.status_code, silent.json()["detail"]) == (
        400,
        "plain.png says nothing about how it was made; give a picture as the program saved it",
    )
    assert server.http.post("/api/pictures/read", content=b"<svg>").status_code == 400


def test_a_full_disk_is_said(server: Running) -> None:
    """And the next request comes through again, over the same connection."""
    db = server.service.jobs._db  # pyright: ignore[reportPrivateUsage]
    (most,) = db.execute("PRAGMA max_page_count").fetchone()
    db.execute("PRAGMA max_page_count = 1")
    asked = {**FOX, "prompt": "a fox " * 3000}
    answers = [server.http.post("/api/jobs", json=asked) for _ in range(2)]
    db.execute(f"PRAGMA max_page_count = {most}")
    text = "a file could not be read or written: database or disk is full; make room on the server's disk"
    assert [(answer.status_code, answer.json()) for answer in answers] == [(507, {"detail": text})] * 2
    assert drawn(server)["state"] == "done"


def test_a_server_whose_disk_is_full_is_not_well(
    server: Running, full_disk: Callable[[], AbstractContextManager[None]], caplog: pytest.LogCaptureFixture
) -> None:
    with full_disk():
        answers = [server.http.get("/healthz") for _ in range(2)]
    assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [(503, "degraded")] * 2
    (line,) = [record.getMessage() for record in caplog.records if record.name == "lorablend.app.service"]
    assert line == f"{server.service.data} cannot be written to (File too large); make room on its disk"
    assert server.http.get("/healthz").json()["status"] == "ok"
    server.service.workers[0].trouble = "the queue cannot be written to (database or disk is full)"
    assert server.http.get("/healthz").status_code == 503
    assert drawn(server)["state"] == "done"  # so it can be written to
    assert server.http.get("/healthz").status_code == 200


def test_names_that_are_too_long(server: Running) -> None:
    """They are the client's fault, not the disk's."""
    name = "x" * 5000
    for method, path, body in (
        ("GET", f"/api/gallery/{name}", None),
        ("GET", f"/api/gallery/{name}.png/picture", None),
        ("GET", f"/api/adapters/{name}", None),
        ("POST", f"/api/adapters/{name}/mark", {"favourite": True}),
        ("GET", f"/api/sheets/{name}.png", None),
        ("GET", f"/api/train/runs/{name}", None),
        ("GET", f"/api/train/sets/{name}", None),
        ("GET", f"/api/train/sets/{name}/pictures/{name}", None),
        ("GET", f"/static-offline-docs/{name}", None),
        ("POST", "/api/jobs", {"prompt": "a fox", "model": name}),
        ("POST", "/api/jobs", {"prompt": "a fox", "image": name}),
        ("POST", "/api/jobs", {"prompt": "a fox", "blend": [name]}),
        ("POST", "/api/jobs", {"prompt": f"a fox <lora:{name}:1>"}),
        ("POST", "/api/jobs", {"prompt": "a fox", "blend": [{"adapter": "ink", "mask": name}]}),
        ("POST", "/api/train", {"name": name, "data": name, "base": name}),
        ("POST", "/api/models/bake", {"name": name, "blend": "<lora:ink:1>"}),
        ("POST", "/api/models/convert", {"name": name, "source": name}),
        ("POST", "/api/adapters/download", {"source": "http://127.0.0.1/x.safetensors", "name": name}),
    ):
        for spelled in (name, "a\0b"):
            asked = json.loads(json.dumps(body).replace(name, spelled.replace("\0", "\\u0000")))
            answer = server.http.request(method, path.replace(name, quote(spelled)), json=asked)
            assert 400 <= answer.status_code < 500, (path[:40], answer.status_code, answer.text[:300])
            assert len(answer.text) < 6000
    files = {"file": (f"{name}.safetensors", b"\0" * 100)}
    assert server.http.post("/api/adapters", files=files).status_code == 400
    sent = {"files": (f"{name}.png", png(np.full((64, 64, 3), 99, np.uint8)))}
    assert server.http.post("/api/train/sets", files=sent, data={"name": name}).status_code == 400


def test_health_and_metrics(server: Running) -> None:
    drawn(server)
    health = server.http.get("/healthz").json()
    assert (health["status"], health["worker"], health["model"], health["queued"]) == ("ok", True, "small", 0)
    assert server.http.head("/healthz").status_code == 200
    lines = server.http.get("/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values['lorablend_jobs{state="done"}']) >= 1
    assert {f'lorablend_jobs{{state="{state}"}}' for state in STATES} < set(values)
    assert float(values['lorablend_job_seconds{kind="draw"}']) > 0
    assert float(values['lorablend_wait_seconds{kind="draw"}']) >= 0
    assert float(values['lorablend_jobs_ended_total{kind="draw",state="done"}']) >= 1
    assert float(values['lorablend_job_duration_seconds_bucket{kind="draw",le="3600.0"}']) >= 1
    assert float(values['lorablend_job_queued_seconds_count{kind="draw"}']) >= 1
    types = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE lorablend")}
    assert types["lorablend_jobs_ended_total"] == "counter"
    assert types["lorablend_job_duration_seconds"] == types["lorablend_job_queued_seconds"] == "histogram"
    assert types["lorablend_jobs"] == types["lorablend_job_seconds"] == types["lorablend_wait_seconds"] == "gauge"

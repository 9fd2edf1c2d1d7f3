"""The program under load, and killed under load, with the demo model: nothing is lost, mixed up or there twice."""

from __future__ import annotations

import base64
import io
import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from lorablend.app.jobs.jobs import ENDED, Jobs
from lorablend.app.pictures.gallery import Gallery
from lorablend.app.pictures.png import read_png, texts_of
from tests.app.rest.rest_server import FAST
from tests.app.test_server import program

CLIENTS, REQUESTS, KILLS = 32, 500, 20
GROWTH = 0.05  # of the memory, from the hundredth request to the last: the bar of the issue


@pytest.mark.slow
def test_many_clients(tmp_path: Path) -> None:
    """Every answer is the picture that was asked for; /healthz answers meanwhile; the memory stays what it is."""
    memory: dict[int, int] = {}
    counted, done = threading.Lock(), iter(range(1, REQUESTS + 1))
    with (
        program("serve", "--data", str(tmp_path / "data")) as (child, url),
        httpx.Client(base_url=url, timeout=300, limits=httpx.Limits(max_connections=None)) as http,
    ):
        process = psutil.Process(child.pid)

        def ask(index: int) -> None:
            _ask_one_way(http, index)
            with counted:
                memory[next(done)] = process.memory_info().rss

        with _watched(url) as slowest, ThreadPoolExecutor(CLIENTS) as pool:
            assert list(pool.map(ask, range(REQUESTS))) == [None] * REQUESTS
        metrics = http.get("/metrics").text
    assert f'lorablend_jobs{{state="done"}} {REQUESTS}.0\n' in metrics
    p99 = sorted(slowest)[int(0.99 * (len(slowest) - 1))]
    grown = memory[REQUESTS] / memory[REQUESTS // 5] - 1
    print(f"\n{CLIENTS} clients, {REQUESTS} requests: /healthz p99 {1000 * p99:.0f} ms, memory {grown:+.1%}")  # noqa: T201
    assert grown <= GROWTH


def _ask_one_way(http: httpx.Client, index: int) -> None:
    """Draw by OpenAI's interface, A1111's or ours, in turn; the picture says what it was asked for."""
    prompt, weight = f"a red boat, number {index}", round(0.1 * (index % 7) - 0.2, 1)
    if index % 3 == 0:
        body: dict[str, Any] = {"prompt": prompt, "size": "64x64", "num_inference_steps": 2, "seed": index}
        answer = _patient(http, "/v1/images/generations", {**body, "loras": {"comic": weight}})
        content = base64.b64decode(answer.json()["data"][0]["b64_json"])
    elif index % 3 == 1:
        body = {"prompt": f"{prompt}<lora:comic:{weight}>", **FAST, "seed": index}
        content = base64.b64decode(_patient(http, "/sdapi/v1/txt2img", body).json()["images"][0])
    else:
        body = {"prompt": prompt, **FAST, "seed": index, "blend": [["comic", weight]]}
        job = _patient(http, "/api/jobs", body).json()
        with http.stream("GET", f"/api/jobs/{job['id']}/events") as stream:
            last = [line for line in stream.iter_lines() if line.startswith("data: ")][-1]
        (picture,) = json.loads(last.removeprefix("data: "))["result"]["pictures"]
        content = http.get(picture["url"]).content
    with Image.open(io.BytesIO(content)) as drawn:
        record = texts_of(drawn, "").record
    assert record is not None
    assert (record.seed, record.request.prompt) == (index, prompt)
    assert [(one.name, one.weight) for one in record.adapters] == [("comic", weight)]


def _patient(http: httpx.Client, path: str, body: dict[str, Any]) -> httpx.Response:
    """As a client should: again after Retry-After where the queue is full."""
    while (answer := http.post(path, json=body)).status_code == 429:
        time.sleep(int(answer.headers["retry-after"]))
    assert answer.is_success, answer.text
    return answer


@contextmanager
def _watched(url: str) -> Iterator[list[float]]:
    """Seconds that /healthz took, again and again as long as the block lasts."""
    slowest: list[float] = []
    ended = threading.Event()

    def look() -> None:
        with httpx.Client(base_url=url, timeout=60) as http:
            while not ended.wait(0.02):
                started = time.perf_counter()
                assert http.get("/healthz").status_code == 200
                slowest.append(time.perf_counter() - started)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield slowest
    finally:
        ended.set()
        watcher.join()


@pytest.mark.slow
def test_kills_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    """kill -9 at moments by chance, while clients ask; in the end every picture is there once, whole, nothing else."""
    chance = random.Random(7)
    data = tmp_path / "data"
    starts: list[float] = []
    for kill in range(KILLS + 1):
        started = time.perf_counter()
        with program("serve", "--data", str(data)) as (child, url):
            assert httpx.get(f"{url}/healthz", timeout=60).status_code == 200
            starts.append(time.perf_counter() - started)
            with ThreadPoolExecutor(4) as pool:
                asking = [pool.submit(_ask_until_it_is_gone, url, 100 * kill + client) for client in range(4)]
                if kill < KILLS:
                    time.sleep(chance.uniform(0.05, 2.0))
                    child.kill()
                for one in asking:
                    one.result()
                if kill == KILLS:
                    _wait_until_all_ended(url)
    print(f"\n{KILLS} kills: up again after {max(starts[1:]):.1f} s at most")  # noqa: T201

    jobs, gallery = Jobs(data / "jobs.sqlite"), Gallery(data / "pictures", data / "gallery.sqlite")
    found = jobs.find(limit=10_000)
    assert len([job for job in found if job.state == "done"]) > KILLS
    assert all(job.state == "done" or "times" in job.reason for job in found)
    files = [picture["file"] for job in found if job.state == "done" for picture in job.result["pictures"]]
    assert len(set(files)) == len(files) == 2 * len([job for job in found if job.state == "done"])
    for job in found:
        for picture in (job.result or {}).get("pictures", ()):
            record = read_png(gallery.path(picture["file"])).record
            assert record is not None
            assert (record.seed, record.request.prompt) == (picture["seed"], job.request["prompt"])
    failed = {f"-{job.number}-" for job in found if job.state == "failed"}
    there = {path.relative_to(data / "pictures").as_posix() for path in (data / "pictures").rglob("*.*")}
    assert all(any(number in name for number in failed) for name in there - set(files))
    assert not list(data.rglob("*.partial"))
    jobs.close()
    gallery.close()


def _ask_until_it_is_gone(url: str, number: int) -> None:
    with suppress(httpx.TransportError), httpx.Client(base_url=url, timeout=60) as http:
        for index in range(6):
            body = {"prompt": f"a red boat {number} {index}", **FAST, "steps": 8, "seed": 10 * index, "count": 2}
            assert http.post("/api/jobs", json=body).status_code in (202, 429)


def _wait_until_all_ended(url: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as http:
        for job in http.get("/api/jobs", params={"limit": 1000}).json()["jobs"]:
            if job["state"] not in ENDED:
                with http.stream("GET", f"/api/jobs/{job['id']}/events", timeout=600) as stream:
                    for _ in stream.iter_lines():
                        pass

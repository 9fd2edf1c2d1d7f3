"""Many clients at once, and whatever a client may send: every picture is the one asked for, and no answer is a 500."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from PIL import Image
from schemathesis import GenerationMode

from lorablend.app.png import texts_of
from tests.app.rest_server import FAST, Running, running

CLIENTS, REQUESTS = 8, 60
SPARING = settings(
    max_examples=4,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


@pytest.fixture(scope="module")
def server(sdxl_model: Path, lora_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("data"), sdxl_model, lora_dir) as server:
        yield server


@pytest.mark.slow
def test_every_client_gets_its_own_pictures(server: Running) -> None:
    weights = {index: round(0.1 * (index % 7) - 0.2, 1) for index in range(REQUESTS)}
    slowest: list[float] = []
    ended = threading.Event()

    def ask(index: int) -> None:
        prompt, weight = f"picture number {index}", weights[index]
        if index % 3 == 0:
            body: dict[str, Any] = {"prompt": prompt, "size": "64x64", "num_inference_steps": 2, "seed": index}
            answer = server.http.post("/v1/images/generations", json={**body, "loras": {"ink": weight}})
            content = base64.b64decode(answer.json()["data"][0]["b64_json"])
        elif index % 3 == 1:
            body = {"prompt": f"{prompt}<lora:ink:{weight}>", **FAST, "seed": index}
            content = base64.b64decode(server.http.post("/sdapi/v1/txt2img", json=body).json()["images"][0])
        else:
            body = {"prompt": prompt, **FAST, "seed": index, "blend": [["ink", weight]]}
            job = server.http.post("/api/jobs", json=body).json()
            with server.http.stream("GET", f"/api/jobs/{job['id']}/events") as stream:
                last = [line for line in stream.iter_lines() if line.startswith("data: ")][-1]
            (picture,) = json.loads(last.removeprefix("data: "))["result"]["pictures"]
            content = server.http.get(picture["url"]).content
        record = texts_of(Image.open(io.BytesIO(content)), "").record
        assert record is not None
        assert (record.seed, record.request.prompt) == (index, prompt)
        assert [(one.name, one.weight) for one in record.adapters] == [("ink", weight)]

    def look() -> None:
        with httpx.Client(base_url=server.url) as http:
            while not ended.wait(0.02):
                started = time.perf_counter()
                assert http.get("/healthz").status_code == 200
                slowest.append(time.perf_counter() - started)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            assert list(pool.map(ask, range(REQUESTS))) == [None] * REQUESTS
    finally:
        ended.set()
        watcher.join()
    done = server.service.jobs.find(state="done", limit=1000)
    assert len(done) == REQUESTS
    p99 = sorted(slowest)[int(0.99 * (len(slowest) - 1))]
    print(f"\n/healthz while {CLIENTS} clients drew {REQUESTS} pictures: p99 {1000 * p99:.0f} ms")  # noqa: T201


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_nothing_that_is_sent_breaks_the_server(server: Running) -> None:
    """What /openapi.json allows, and some of what it does not. Jobs are cancelled at once: no test of drawing."""
    answers: Counter[int] = Counter()
    ended = threading.Event()
    end = time.monotonic() + 60
    operations = [
        found.ok() for found in schemathesis.openapi.from_url(f"{server.url}/openapi.json").get_all_operations()
    ]

    def empty_the_queue() -> None:
        while not ended.wait(0.05):
            for state in ("running", "queued"):
                for job in server.service.jobs.find(state=state):
                    server.service.jobs.cancel(job.id)

    def check(case: Any) -> None:
        if time.monotonic() < end:
            answer = case.call(timeout=60)
            answers[answer.status_code] += 1
            assert answer.status_code < 500, f"{answer.text[:300]}\n{case.as_curl_command()[:1000]}"

    emptying = threading.Thread(target=empty_the_queue)
    emptying.start()
    try:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            for operation in operations:
                with suppress(Unsatisfiable):  # there is nothing that it does not take
                    SPARING(given(operation.as_strategy(mode))(check))()
    finally:
        ended.set()
        emptying.join()
    print(f"\nanswers by status: {dict(sorted(answers.items()))}")  # noqa: T201
    assert sum(answers.values()) > 100
    assert answers[200]
    assert answers[422]

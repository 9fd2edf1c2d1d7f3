"""The description of the interface: complete, and good enough for a client that is generated from it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.app.rest.rest_server import FAST, Running, running

# What the generator does not know as files by itself.
FILES = ["image/png", "image/jpeg", "image/webp", "application/zip"]
OCTETS = "application/octet-stream"


@pytest.fixture(scope="module")
def server(sdxl_model: Path, lora_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("data"), sdxl_model, lora_dir) as server:
        yield server


@pytest.fixture(scope="module")
def api(server: Running) -> dict[str, Any]:
    return server.http.get("/openapi.json").json()


def test_every_operation_is_described(api: dict[str, Any]) -> None:
    """By a summary, a description, and a schema or a media type of what it replies, and why it may refuse."""
    operations = [(method, path, one) for path, methods in api["paths"].items() for method, one in methods.items()]
    assert len(operations) >= 81
    for method, path, operation in operations:
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"].endswith("."), where
        done = {status: one for status, one in operation["responses"].items() if status in ("200", "201", "202")}
        assert len(done) == 1, where
        for status, response in operation["responses"].items():
            assert response["description"] not in ("", "Successful Response") or status in done, where
            if status != "204":
                assert response["content"], where
                assert all(kind["schema"] for kind in response["content"].values()), where
    assert len({operation["operationId"] for _, _, operation in operations}) == len(operations)


def test_every_schema_is_described(api: dict[str, Any]) -> None:
    own = {name: schema for name, schema in api["components"]["schemas"].items() if schema["type"] == "object"}
    assert [name for name, schema in own.items() if not schema.get("description")] == []


def test_the_docs_page(server: Running) -> None:
    page = server.http.get("/docs")
    assert page.status_code == 200
    assert "swagger" in page.text
    assert "https://" not in page.text  # no script of another server


@pytest.mark.slow
def test_a_generated_client_draws_a_picture(
    server: Running, api: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(api))
    (tmp_path / "config.json").write_text(json.dumps({"content_type_overrides": dict.fromkeys(FILES, OCTETS)}))
    program = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
    options = ["--path", "openapi.json", "--config", "config.json", "--output-path", "drawn_with"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it formats with ruff
    made = subprocess.run(
        [*program, *options], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PATH": path}
    )
    assert (made.returncode, made.stdout + made.stderr) == (0, "Generating drawn_with\n")  # without a warning
    monkeypatch.syspath_prepend(str(tmp_path))
    load = lambda name: importlib.import_module(f"drawn_with.{name}")  # noqa: E731
    models = load("models")
    with load("client").Client(base_url=server.url, timeout=httpx.Timeout(60)) as client:
        submit, get = load("api.lorablend.submit_job_api_jobs_post"), load("api.lorablend.get_job_api_jobs_job_get")
        picture = load("api.lorablend.get_picture_api_gallery_file_picture_get")
        job = submit.sync(client=client, body=models.Draw(prompt="a fox", seed=7, **FAST))
        assert isinstance(job, models.JobReply)
        end = time.monotonic() + 60
        while job.state not in ("done", "failed") and time.monotonic() < end:
            time.sleep(0.2)
            job = get.sync(job.id, client=client)
        assert job.state == "done", job.reason
        (drawn,) = job.result.pictures
        assert (drawn.seed, drawn.url) == (7, f"/api/gallery/{drawn.file}/picture")
        assert picture.sync_detailed(drawn.file, client=client).content.startswith(b"\x89PNG")
        wrong = submit.sync(client=client, body=models.Draw(prompt="a fox", width=65))
        assert isinstance(wrong, models.Refusal)
        assert wrong.detail.startswith("width is 65; give a multiple of 8")

"""Downloads as jobs: each knows the whole address that it was given, and tells others only a part of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lorablend.adapters.errors import AdapterError, RequestError
from lorablend.app.jobs.jobs import Job, Jobs
from lorablend.app.library.library import Library
from lorablend.app.library.watch import Limits
from lorablend.app.work import adding
from lorablend.app.work.adding import Adding
from lorablend.app.work.models import Models
from tests.adapter_files import SDXL_SHAPES, message_of, random_factors, write_kohya
from tests.app.file_server import FileServer


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    with closing(Jobs(tmp_path / "jobs.sqlite", limit=3)) as jobs:
        yield jobs


@pytest.fixture
def models(empty: Library) -> Models:
    return Models({}, empty.folder)


def done(adding: Adding, jobs: Jobs) -> object:
    """Do the next job; returns its result."""
    job = jobs.take(["add"], 0)
    assert job is not None
    result = adding(job, lambda _: True)
    jobs.finish(job.id, result)
    return result


def test_each_job_has_its_own_token(models: Models, jobs: Jobs, server: FileServer, adapter: Path) -> None:
    """Also where the rest of the address is the same, in whatever order they come."""
    adding = Adding(models, jobs)
    address = f"{server.url}/ink.safetensors"
    for name, query in (("first", "?token=anna"), ("second", "?token=bert"), ("third", "")):
        job = adding.submit(address + query, name, client="the same")
        assert job.request["source"] == address
    for seed in range(3):
        write_kohya(adapter, random_factors(SDXL_SHAPES, seed=seed))
        server.files["/ink.safetensors"] = adapter.read_bytes()
        done(adding, jobs)
    paths = [path for path, _ in server.asked]
    assert paths == ["/ink.safetensors?token=anna", "/ink.safetensors?token=bert", "/ink.safetensors"]


def test_a_token_does_not_outlive_the_server(models: Models, jobs: Jobs, server: FileServer) -> None:
    """Another job of the same address brings no token for it."""
    address = f"{server.url}/ink.safetensors"
    Adding(models, jobs).submit(f"{address}?token=anna")
    restarted = Adding(models, jobs)
    restarted.submit(f"{address}?token=bert", client="bert")
    first: Job | None = jobs.take(["add"], 0)
    assert first is not None
    assert message_of(RequestError, lambda: restarted(first, lambda _: True)) == (
        f"{address}: the server was restarted, and keeps no token of an address; add it again"
    )
    assert not server.asked
    assert done(restarted, jobs) == {"adapter": "ink"}


def test_a_server_has_limits(models: Models, jobs: Jobs, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adding, "_LIMITS", Limits(size=1000))
    runner = Adding(models, jobs)
    runner.submit(f"{server.url}/ink.safetensors")
    job = jobs.take(["add"], 0)
    assert job is not None
    message = message_of(AdapterError, lambda: runner(job, lambda _: True))
    assert message.endswith("at most 0.0 GB are downloaded here; give the file itself")

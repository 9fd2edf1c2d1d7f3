"""Whatever a client may send: no answer is a 500, and every answer is what /openapi.json says."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from tests.app.rest.rest_server import Running, running

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
    """On adapters of its own: requests add and mark some."""
    adapters = tmp_path_factory.mktemp("fuzz") / "adapters"
    shutil.copytree(lora_dir, adapters)
    with running(tmp_path_factory.mktemp("data"), sdxl_model, adapters) as server:
        yield server


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_nothing_that_is_sent_breaks_the_server(server: Running) -> None:
    """What /openapi.json allows, and some of what it does not. Jobs are cancelled at once: this tests no drawing."""
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
            case.validate_response(answer, checks=[content_type_conformance, response_schema_conformance])

    emptying = threading.Thread(target=empty_the_queue)
    emptying.start()
    try:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            for operation in operations:
                with suppress(Unsatisfiable):  # it takes everything
                    SPARING(given(operation.as_strategy(mode))(check))()
    finally:
        ended.set()
        emptying.join()
    print(f"\nanswers by status: {dict(sorted(answers.items()))}")  # noqa: T201
    assert sum(answers.values()) > 100
    assert answers[200]
    assert answers[422]

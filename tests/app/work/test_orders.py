"""The orders in the queue: rows that version 0.1.0 wrote are read, and are written the same today."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lorablend.app.jobs.jobs import Jobs
from lorablend.app.orders.kinds import ORDERS, order_of, refuse_unreadable, submit_order

# As they stand in `jobs.sqlite`.
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("draw", {"prompt": "a fox", "steps": 2, "width": 64, "height": 64, "seed": 7}),
    (
        "draw",
        {
            "prompt": "a fox",
            "negative_prompt": "blurry",
            "blend": {"items": [{"adapter": "ink", "weight": 0.8}]},
            "guidance_scale": 1.0,
            "seed": 3849261054,
            "scheduler": "euler",
            "spacing": "karras",
            "timesteps": [999.0, 749.0],
            "count": 4,
            "image": "0f" * 32,
            "strength": 0.5,
            "mask": "1f" * 32,
            "model": "sdxl",
            "format": "webp",
        },
    ),
    ("draw", {"prompt": "a fox", "seed": 1, "comparison": {"name": "93bc41aa0a61d3cb", "label": "without ink"}}),
    ("grid", {"prompt": "a fox", "seed": 1, "axes": ["seed=1..3", "ink=0,0.5,1"]}),
    ("train", {"set": "knit", "name": "knit", "steps": 12, "rank": 2, "learning_rate": 0.0001, "trigger": "knit"}),
    ("convert", {"source": "owner/name", "name": "sdxl", "weights": "int8"}),
    ("compress", {"name": "small", "model": "sdxl"}),
    ("bake", {"name": "inked", "blend": [["ink", 0.8]]}),
    ("add", {"source": "https://example.com/ink.safetensors", "name": "", "whole": False}),
]


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    with closing(Jobs(tmp_path / "jobs.sqlite")) as jobs:
        yield jobs


@pytest.mark.parametrize(("kind", "request_"), ROWS)
def test_rows_of_0_1_0(jobs: Jobs, kind: str, request_: dict[str, Any]) -> None:
    order = order_of(jobs.submit(kind, request_))
    again = submit_order(jobs, order, "anna")
    assert (again.kind, again.client, again.request) == (kind, "anna", request_)


def test_every_kind_has_a_row_here() -> None:
    assert {kind for kind, _ in ROWS} == set(ORDERS)


def test_what_a_newer_version_left(jobs: Jobs) -> None:
    """It fails at the start, whatever is strange in it; the rest waits on."""
    strange, newer = jobs.submit("dream", {}), jobs.submit("compress", {"name": "small", "bits": 4})
    known = jobs.submit("compress", {"name": "small"})
    refuse_unreadable(jobs)
    assert [jobs.get(job.id).state for job in (strange, newer, known)] == ["failed", "failed", "queued"]
    reason = "the order cannot be read (bits: Extra inputs are not permitted); submit it again"
    assert jobs.get(newer.id).reason == reason

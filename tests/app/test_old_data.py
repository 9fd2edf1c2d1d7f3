"""A data folder and a library that an older lorablend (commit 5ce035f) wrote are opened by this one, with all in them.

`old_data/` was written by that version on the demo model, at 64×64 pixels: pictures in the three formats, one of them
in the bin; a comparison, a grid, two downloads, a training and a bake; a draw and a grid still waiting when it stopped.
The trained adapter, the baked model and the checkpoints were deleted afterwards, to keep the folder small.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorablend.app.library.library import Library
from lorablend.app.library.shelf import Shelf
from lorablend.app.page.styles import Styles
from lorablend.app.pictures.png import read_png
from lorablend.app.reuse import reuse
from lorablend.app.service import Service
from lorablend.shipped import model_dir

_INK = "2026-11-30/213343-1-7.png"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, for opening it writes to it."""
    return shutil.copytree(Path(__file__).with_name("old_data"), tmp_path_factory.mktemp("old") / "copy")


@pytest.fixture(scope="module")
def service(old: Path) -> Iterator[Service]:
    """Opened, but not started: what waits is still waiting."""
    service = Service(old / "data", {"demo": model_dir()}, old / "adapters")
    yield service
    service.close()


def test_jobs(service: Service) -> None:
    jobs = list(reversed(service.jobs.find(limit=100)))
    assert [(job.number, job.kind, job.state) for job in jobs] == [
        (1, "draw", "done"),
        (2, "draw", "done"),
        (3, "draw", "done"),
        (4, "draw", "done"),
        (5, "draw", "done"),
        (6, "draw", "done"),
        (7, "grid", "done"),
        (8, "add", "done"),
        (9, "add", "failed"),
        (10, "train", "done"),
        (11, "bake", "done"),
        (12, "draw", "queued"),
        (13, "grid", "queued"),
        (14, "convert", "cancelled"),
        (15, "train", "cancelled"),
    ]
    assert jobs[0].request["prompt"] == "a red circle"
    assert jobs[0].result["pictures"][0]["file"] == _INK
    assert jobs[0].client == "ada"
    assert jobs[8].reason.startswith("http://127.0.0.1:8765/nothing.safetensors: the server refuses it, status 404")
    assert jobs[9].result == {"adapter": "blocks", "steps": 2, "loss": 0.306808}


def test_gallery(service: Service) -> None:
    gallery = service.gallery
    assert {picture.file.rpartition(".")[2] for picture in gallery.find()} == {"png", "jpg", "webp"}
    assert [picture.file for picture in gallery.find("circle red")] == [_INK]
    assert [picture.file for picture in gallery.find(favourite=True)] == [_INK]
    assert [picture.seed for picture in gallery.find(adapter="neon")] == [7]
    assert gallery.adapters() == ["ink", "neon"]
    assert gallery.bin() == ["2026-11-30/213356-4-10.png"]
    assert service.grids.sheets(5) == ["2026-11-30-213357-7.png"]


def test_records_fill_the_form(service: Service) -> None:
    shelf = Shelf(service.models.lora_dir)
    found = reuse(service, shelf, _INK)
    assert found.missing == ()
    assert found.draw.model_dump(include={"prompt", "negative_prompt", "seed", "steps", "scheduler"}) == {
        "prompt": "a red circle",
        "negative_prompt": "blurred",
        "seed": 7,
        "steps": 2,
        "scheduler": "euler",
    }
    assert isinstance(found.draw.blend, dict)
    assert [(item["adapter"], item["weight"]) for item in found.draw.blend["items"]] == [
        ("ink", 0.8),
        ("styles/neon", 0.25),
    ]
    (jpeg,) = service.gallery.find("blue square")
    assert read_png(service.gallery.path(jpeg.file)).record is not None
    assert reuse(service, shelf, jpeg.file).draw.format == "jpeg"
    (started,) = service.gallery.find("orange moon")
    draw = reuse(service, shelf, started.file).draw
    assert (draw.strength, draw.format) == (0.6, "webp")
    assert draw.image is not None
    assert service.uploads.open(draw.image).size == (64, 64)


def test_library_marks(old: Path) -> None:
    library = Library(old / "adapters")
    library.scan()
    library.hash_files()
    assert [entry.name for entry in library.entries()] == ["chalk", "ink", "styles/neon"]
    assert [entry.name for entry in library.search(favourite=True)] == ["ink"]
    assert [entry.name for entry in library.search(tag="night")] == ["styles/neon"]
    assert library.get("ink").last_used == "2026-11-30T21:33:56+00:00"
    assert library.preview("ink") is not None


def test_styles_sets_and_trainings(service: Service) -> None:
    styles = Styles(service.data / "styles")
    assert styles.names() == ["Ink at night"]
    assert [item.get("on", True) for item in styles.load("Ink at night")["items"]] == [True, False]
    assert service.sets.names() == ["blocks"]
    assert [picture.caption for picture in service.sets.pictures("blocks")] == ["a blue block", "a green block"]
    assert service.sets.dropped("blocks") == ["red.png"]
    assert [point.step for point in service.training.losses("blocks")] == [1, 2]


def test_what_waited_is_done(service: Service) -> None:
    draw, grid = (job for job in reversed(service.jobs.find(limit=100)) if job.state == "queued")
    service.start()
    draw, grid = service.wait(draw), service.wait(grid)
    assert draw.state == "done", draw.reason
    assert grid.state == "done", grid.reason
    (picture,) = service.gallery.find("waiting triangle")
    assert (picture.seed, picture.adapters, picture.width) == (21, ("ink",), 64)
    assert {picture.seed for picture in service.gallery.find("waiting star")} == {1, 2}

"""Grids as jobs: the pictures are those of single drawings, none is drawn twice, and what is wrong is said at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lorablend.adapters.errors import BlendError, LorablendError, RequestError
from lorablend.app.jobs.jobs import Job, JobProgress
from lorablend.app.orders.draw import Draw
from lorablend.app.orders.grid import DrawGrid
from lorablend.app.pictures.png import encode, open_picture, read_png
from lorablend.app.pictures.record import Record
from lorablend.app.service import Service
from lorablend.app.work.grids import named_axis
from tests.app.pictures.on_sheet import places

FAST: dict[str, Any] = {"prompt": "a fox", "steps": 2, "width": 64, "height": 64, "seed": 7}


def asked(*axes: str, **fields: Any) -> DrawGrid:
    return DrawGrid.model_validate({**FAST, "axes": list(axes), **fields})


def finished(service: Service, *axes: str, **fields: Any) -> Job:
    job = service.wait(service.grids.submit(asked(*axes, **fields)))
    assert job.state == "done", job.reason
    return job


def test_pictures_and_sheet(service: Service) -> None:
    job = finished(service, "weight:ink=0,0.8", "seed=7,8", blend=[["neon glow", 0.3]])
    assert [picture["phrases"] for picture in job.result["pictures"]] == [
        ["weight of ink 0", "seed 7"],
        ["weight of ink 0.8", "seed 7"],
        ["weight of ink 0", "seed 8"],
        ["weight of ink 0.8", "seed 8"],
    ]
    sheet = open_picture(service.grids.sheet(job.result["sheet"]))
    records = []
    for picture, (weight, seed) in zip(job.result["pictures"], [(0, 7), (0.8, 7), (0, 8), (0.8, 8)], strict=True):
        own = open_picture(service.gallery.path(picture["file"]))
        blend = [["neon glow", 0.3], ["ink", weight]]
        single = service.wait(service.draw(Draw.model_validate({**FAST, "blend": blend, "seed": seed})))
        expected = open_picture(service.gallery.path(single.result["pictures"][0]["file"]))
        assert own.tobytes() == expected.tobytes()
        assert len(places(sheet, own)) == 1
        assert picture["seed"] == seed
        records.append(read_png(service.gallery.path(picture["file"])).record)
    form = json.loads(sheet.info["lorablend-grid"])
    assert [Record.from_json(json.dumps(cell["record"])) for cell in form["cells"]] == records
    assert service.grids.sheets()[0] == job.result["sheet"]


def test_adapters_one_after_the_other(service: Service) -> None:
    job = finished(service, "checkpoint=ink,neon glow", "weight:checkpoint=0.5")
    adapters = [service.gallery.get(picture["file"]).adapters for picture in job.result["pictures"]]
    assert adapters == [("ink",), ("neon glow",)]


def test_progress(service: Service) -> None:
    """Steps of the whole grid, and what is being drawn."""
    job = service.grids.submit(asked("steps=30,10", "guidance=1,3"))
    seen: list[JobProgress] = []
    for one in service.jobs.watch(job.id):
        if one.progress:
            seen.append(one.progress)
    assert {progress.steps for progress in seen} == {80}
    assert [progress.step for progress in seen] == sorted(progress.step for progress in seen)
    assert {progress.text for progress in seen} & {
        f"picture {number} of 4: {phrase}"
        for number, phrase in enumerate(("steps 30, guidance 1", "steps 10, guidance 1", "steps 30, guidance 3"), 1)
    }
    assert any((progress.preview or b"").startswith(b"\x89PNG") for progress in seen)
    assert any(progress.eta for progress in seen)


def test_from_a_picture(service: Service) -> None:
    image = service.uploads.keep(encode(Image.fromarray(np.full((64, 64, 3), 99, np.uint8)), "png", {}))
    job = finished(service, "strength=0.5,1", image=image, width=None, height=None)
    strengths = [read_png(service.gallery.path(one["file"])).record for one in job.result["pictures"]]
    assert [record and record.request.strength for record in strengths] == [0.5, 1]


WRONG: list[tuple[list[str], dict[str, Any], type[LorablendError], str]] = [
    (["steps=2,0"], {}, RequestError, "steps is 0; give 1 to 1000"),
    (["step=1"], {}, RequestError, 'a grid has no axis "step"; did you mean "steps"?'),
    (["seed=1..60", "guidance=1,2"], {}, RequestError, "the grid has 120 pictures (60×2); give at most 100"),
    (["seed=1", "seed=2"], {}, RequestError, "seed is on two axes; give it one"),
    (["weight=0,1"], {}, BlendError, "the axis weight is for all adapters, but there is none"),
    (["weight:inc=1"], {}, BlendError, "did you mean ink?"),
    (["checkpoint=ink,nosuch"], {}, BlendError, "nosuch: no adapter with that name"),
    (["seed=1,2"], {"width": 70}, RequestError, "width is 70; give a multiple of 8"),
    (["seed=1,2"], {"model": "large"}, RequestError, "there is no model 'large'"),
    (["seed=1,2"], {"count": 3}, RequestError, "count is 3; a grid draws each of its pictures once"),
    (["strength=0.5,1"], {}, RequestError, "strength is given without image"),
    (["scheduler=euler,eular"], {}, RequestError, 'scheduler is "eular"; did you mean "euler"?'),
]


@pytest.mark.parametrize(("axes", "fields", "error", "text"), WRONG, ids=[case[3][:40] for case in WRONG])
def test_what_is_wrong_is_said_at_once(
    service: Service, axes: list[str], fields: dict[str, Any], error: type[LorablendError], text: str
) -> None:
    before = service.jobs.find(limit=1)
    with pytest.raises(error) as caught:
        service.grids.submit(asked(*axes, **fields))
    assert text in str(caught.value)
    assert service.jobs.find(limit=1) == before


def test_no_axis_names_a_file(
    service: Service, lora_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by its path nor by a pattern, wherever the server was started."""
    monkeypatch.chdir(lora_dir.parent)
    file = lora_dir / "ink.safetensors"
    inside = f"{lora_dir.name}/ink.safetensors"
    hostile = [str(file), f"../{lora_dir.name}/ink.safetensors", inside, f"{lora_dir}/*.safetensors", "*", "~/x", "in?"]
    for text in [*hostile, r"C:\x.safetensors", "\x00"]:
        for axis in (f"checkpoint={text}", f" checkpoint =ink,{text}", f"weight:{text}=1"):
            with pytest.raises(LorablendError) as caught:
                service.grids.submit(asked(axis))
            assert isinstance(caught.value, RequestError | BlendError), axis
    assert named_axis("checkpoint=ink", lora_dir).values == (file,)


def test_a_stopped_grid_keeps_its_pictures(service: Service) -> None:
    job = service.grids.submit(asked("seed=1..50", steps=20))
    for seen in service.jobs.watch(job.id):
        if seen.progress and seen.progress.step > 30:
            service.jobs.cancel(job.id)
    assert service.jobs.get(job.id).state == "cancelled"
    pictures = [one for one in service.gallery.find(limit=1000) if f"-{job.number}-" in one.file]
    assert 1 <= len(pictures) < 50
    assert not any(f"-{job.number}.png" in sheet for sheet in service.grids.sheets())


@pytest.mark.slow
def test_a_grid_goes_on_where_it_was(sdxl_model: Path, lora_dir: Path, tmp_path: Path) -> None:
    """What is there is not drawn again, and the sheet is the same as that of one run."""
    axes = ["weight:ink=0,1", "seed=1..3"]
    first = Service(tmp_path / "a", {"small": sdxl_model}, lora_dir)
    job = first.grids.submit(asked(*axes, steps=20))
    first.start()
    for seen in first.jobs.watch(job.id):
        if seen.progress and seen.progress.step > 45:
            break
    first.close()
    there = {path: path.stat().st_mtime_ns for path in (tmp_path / "a/pictures").glob("*/*.png")}
    assert 1 <= len(there) < 6
    second = Service(tmp_path / "a", {"small": sdxl_model}, lora_dir)
    second.start()
    done = second.wait(job)
    second.close()
    assert done.state == "done", done.reason
    assert all(path.stat().st_mtime_ns == when for path, when in there.items())
    assert len(list((tmp_path / "a/pictures").glob("*/*.png"))) == len(done.result["pictures"]) == 6
    whole = Service(tmp_path / "b", {"small": sdxl_model}, lora_dir)
    whole.start()
    other = whole.wait(whole.grids.submit(asked(*axes, steps=20)))
    whole.close()
    sheets = [open_picture(path) for path in sorted(tmp_path.glob("*/sheets/*.png"))]
    assert sheets[0].tobytes() == sheets[1].tobytes()
    assert sheets[0].info["lorablend-grid"] == sheets[1].info["lorablend-grid"]
    phrases = [[picture["phrases"] for picture in one.result["pictures"]] for one in (done, other)]
    assert phrases[0] == phrases[1]


def test_an_estimate(service: Service) -> None:
    service.wait(service.draw(Draw.model_validate(FAST)))
    count, small = service.grids.estimate(asked("steps=2,4", "seed=1..3"))
    assert count == 6
    _, large = service.grids.estimate(asked("steps=20,40", "seed=1..3", width=128))
    assert small
    assert large == pytest.approx(20 * small)
    assert service.grids.estimate(asked("seed=1,2", model="other")) == (2, None)
    with pytest.raises(RequestError):
        service.grids.estimate(asked("seed=one"))


def test_no_sheet_is_a_path(service: Service) -> None:
    for name in (
        "../jobs.sqlite",
        "/etc/passwd",
        "",
        ".png",
        "2024-01-01-000000-1.png",
        "x/../2024-01-01-000000-1.png",
    ):
        with pytest.raises(RequestError, match="there is no sheet"):
            service.grids.sheet(name)

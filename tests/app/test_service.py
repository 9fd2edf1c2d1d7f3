"""The service as faces use it: jobs become pictures, whatever happens to the process."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorablend.adapters.errors import AdapterError, BlendError, LorablendError, ModelError, RequestError, ResourceError
from lorablend.app.jobs.jobs import Job, JobProgress
from lorablend.app.orders.draw import Draw
from lorablend.app.pictures.png import encode, open_picture, read_png
from lorablend.app.service import Service
from lorablend.engine import Pipeline
from tests.adapter_files import random_factors, write_kohya

FAST = {"steps": 2, "width": 64, "height": 64}


def drawn(service: Service, **fields: object) -> Job:
    return service.wait(service.draw(Draw.model_validate({"prompt": "a fox", **FAST, **fields})))


def test_pictures_are_the_librarys_own(service: Service, sdxl_model: Path, lora_dir: Path) -> None:
    job = drawn(service, seed=7, count=2, blend=[["ink", 0.8]])
    assert job.state == "done", job.reason
    assert [picture["seed"] for picture in job.result["pictures"]] == [7, 8]
    pipe = Pipeline(sdxl_model, lora_dir=lora_dir)
    for picture in job.result["pictures"]:
        path = service.gallery.path(picture["file"])
        expected = pipe.generate("a fox", blend=[("ink", 0.8)], seed=picture["seed"], **FAST).images[0]
        assert open_picture(path).tobytes() == expected.tobytes()
        assert f"Seed: {picture['seed']}" in str(read_png(path).parameters)
        assert service.gallery.get(picture["file"]).adapters == ("ink",)


def test_a_full_disk_is_said(
    sdxl_model: Path, tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    with full_disk(), pytest.raises(ResourceError) as told:
        Service(tmp_path, {"small": sdxl_model})
    assert str(told.value) == f"{tmp_path} cannot be read and written (disk I/O error); make room on its disk"


def test_every_format_keeps_its_settings(service: Service) -> None:
    kept = []
    prompt = "ein Füchslein 🦊"
    for kind, suffix in (("png", ".png"), ("webp", ".webp"), ("jpeg", ".jpg")):
        (picture,) = drawn(service, prompt=prompt, seed=3, format=kind).result["pictures"]
        path = service.gallery.path(picture["file"])
        assert path.suffix == suffix
        kept.append(read_png(path))
    assert kept[0] == kept[1] == kept[2]
    assert kept[0].record is not None
    assert kept[0].record.request.prompt == prompt


def test_texts_that_are_too_long_for_a_jpeg(service: Service) -> None:
    long = "a fox " * 3333
    (picture,) = drawn(service, prompt=long, format="jpeg").result["pictures"]
    record = read_png(service.gallery.path(picture["file"])).record
    assert record is not None
    assert record.request.prompt == long
    draw = Draw.model_validate({"prompt": long, "negative_prompt": long, **FAST})
    service.drawing.check(draw)
    with pytest.raises(RequestError, match=r"up to 12\d,\d{3} bytes, but a JPEG holds 65,533; .* choose png or webp"):
        service.drawing.check(draw.model_copy(update={"format": "jpeg"}))


def test_from_a_picture_with_a_mask(service: Service) -> None:
    start = np.full((64, 64, 3), 200, np.uint8)
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[:, 32:] = 255
    names = [service.uploads.keep(encode(Image.fromarray(pixels), "png", {})) for pixels in (start, mask)]
    job = drawn(service, seed=1, image=names[0], mask=names[1], strength=0.9)
    picture = np.asarray(open_picture(service.gallery.path(job.result["pictures"][0]["file"])))
    assert (picture[:, :32] == 200).all()
    assert not (picture[:, 40:] == 200).all()


def submit(service: Service, **fields: object) -> Callable[[], Job]:
    return lambda: service.draw(Draw.model_validate({"prompt": "a fox", **FAST, **fields}))


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"prompt": "a fox <lora:inc>"}, BlendError, "did you mean ink?"),
        ({"width": 70}, RequestError, "width is 70"),
        ({"scheduler": "best"}, RequestError, "best"),
        ({"blend": [["/etc/passwd", 1]]}, BlendError, "is a path"),
        ({"blend": [{"adapter": "../ink", "weight": 1}]}, BlendError, "is a path"),
        ({"blend": {"items": [["x/../../ink", 1]]}}, BlendError, "is a path"),
        ({"blend": [{"adapter": "ink", "mask": "/etc/passwd"}]}, RequestError, "no uploaded picture"),
        ({"image": "../jobs.sqlite"}, RequestError, "no uploaded picture"),
        ({"model": "large"}, RequestError, "no model 'large'"),
    ],
)
def test_what_is_wrong_is_said_at_once(
    service: Service, fields: dict[str, object], error: type[LorablendError], text: str
) -> None:
    before = len(service.jobs.find())
    with pytest.raises(error) as caught:
        submit(service, **fields)()
    assert text in str(caught.value)
    assert len(service.jobs.find()) == before


def test_an_adapter_of_another_model(sdxl_model: Path, tmp_path: Path) -> None:
    old = ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k")
    (tmp_path / "adapters").mkdir()
    write_kohya(tmp_path / "adapters" / "old.safetensors", random_factors({old: (320, 768)}), base="sd15")
    service = Service(tmp_path / "data", {"small": sdxl_model}, tmp_path / "adapters")
    with pytest.raises(AdapterError, match="choose an adapter for sdxl"):
        submit(service, blend=[["old", 1]])()
    service.close()


def test_no_link_leads_out(sdxl_model: Path, lora_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "out.safetensors").symlink_to(lora_dir / "ink.safetensors")
    service = Service(tmp_path / "data", {"small": sdxl_model}, tmp_path / "adapters")
    with pytest.raises(BlendError, match="a link that points outside"):
        submit(service, blend=[["out", 1]])()
    service.close()


def test_a_file_that_goes_away_fails_the_job_by_name(sdxl_model: Path, lora_dir: Path, tmp_path: Path) -> None:
    """Checked when it was submitted, gone when it is drawn: an error without folders, never a picture without it."""
    adapter = tmp_path / "adapters" / "ink.safetensors"
    adapter.parent.mkdir()
    adapter.write_bytes((lora_dir / "ink.safetensors").read_bytes())
    service = Service(tmp_path / "data", {"small": sdxl_model}, adapter.parent)
    job = submit(service, blend=[["ink", 1]])()
    adapter.unlink()
    service.start()
    job = service.wait(job)
    assert (job.state, job.result) == ("failed", None)
    assert "ink" in job.reason
    assert str(tmp_path) not in job.reason
    assert not service.gallery.find()
    service.close()


def test_stop_keeps_the_pictures_that_are_done(service: Service) -> None:
    job = service.draw(Draw.model_validate({"prompt": "a fox", **FAST, "steps": 60, "count": 20, "seed": 1}))
    for seen in service.jobs.watch(job.id):
        if seen.progress and seen.progress.step > 70:
            assert seen.progress.steps == 20 * 60
            assert seen.progress.eta
            assert (seen.progress.preview or b"").startswith(b"\x89PNG")
            assert service.jobs.cancel(job.id).stopping
    ended = service.jobs.get(job.id)
    assert (ended.state, ended.stopping) == ("cancelled", False)
    assert 1 <= len([p for p in service.gallery.find() if f"-{job.number}-" in p.file]) < 20


def test_progress_names_its_stage(service: Service) -> None:
    job = service.wait(service.draw(Draw.model_validate({"prompt": "a fox", **FAST, "count": 2, "seed": 1})))
    reports: list[JobProgress] = []

    def report(progress: JobProgress) -> bool:
        reports.append(progress)
        return True

    service.drawing(replace(job, number=job.number + 1000), report)
    assert [(one.step, one.steps, one.text) for one in reports] == [
        (0, 2, "getting ready"),
        (1, 4, ""),
        (2, 4, "decoding"),
        (1, 2, "getting ready"),
        (3, 4, ""),
        (4, 4, "decoding"),
    ]
    assert (reports[-1].eta or 0) > 0  # the last steps are done, but not the picture


def test_a_closed_service_goes_on_where_it_was(sdxl_model: Path, tmp_path: Path) -> None:
    first = Service(tmp_path, {"small": sdxl_model})
    job = first.draw(Draw.model_validate({"prompt": "a fox", **FAST, "steps": 30, "count": 3, "seed": 5}))
    first.start()
    for seen in first.jobs.watch(job.id):
        if seen.progress and seen.progress.step > 35:
            break
    first.close()
    second = Service(tmp_path, {"small": sdxl_model})
    assert (second.jobs.get(job.id).state, second.jobs.get(job.id).attempts) == ("queued", 0)
    second.start()
    done = second.wait(job)
    assert [picture["seed"] for picture in done.result["pictures"]] == [5, 6, 7]
    assert len(second.gallery.find()) == 3
    second.close()


def test_what_is_removed_at_the_start(sdxl_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old uploads that no job waits for and no picture was made from, and what a kill left of an adapter that was sent.

    The data folder is ".".
    """
    monkeypatch.chdir(tmp_path)
    first = Service(Path("."), {"small": sdxl_model})
    contents = [encode(Image.new("RGB", (64, 64), color), "png", {}) for color in ("red", "blue", "green", "white")]
    waited_for, shown, gone, old = (first.uploads.keep(content) for content in contents)
    drawn = [submit(first, image=name, strength=0.5, steps=2)().id for name in (shown, gone)]
    first.start()
    file = [first.wait(first.jobs.get(job)).result["pictures"][0]["file"] for job in drawn][1]
    first.gallery.delete(file)
    first.gallery.empty_bin()
    first.close()
    first = Service(Path("."), {"small": sdxl_model})
    submit(first, image=waited_for, strength=0.5)()
    for name in (waited_for, shown, gone, old):
        os.utime(first.uploads.path(name), (0, 0))
    (tmp_path / ".receiving-abc").mkdir()
    first.close()
    second = Service(Path("."), {"small": sdxl_model})
    assert {path.stem for path in (tmp_path / "uploads").iterdir()} == {waited_for, shown}
    assert not (tmp_path / ".receiving-abc").exists()
    assert second.public(f"{tmp_path}/jobs.sqlite has 1.5 MB.") == "jobs.sqlite has 1.5 MB."
    assert second.public(f"{Path.home()}/.cache/a.xml is damaged") == ".cache/a.xml is damaged"
    second.close()


def test_a_broken_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        Service(tmp_path, {"broken": tmp_path})

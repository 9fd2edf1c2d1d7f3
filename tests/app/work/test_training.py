"""Training as a job of the service: refused at once, done, stopped and gone on with, after a restart too."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import LorablendError, MissingExtraError, RequestError
from lorablend.app.jobs.jobs import Job
from lorablend.app.orders.draw import Draw
from lorablend.app.orders.train import Train
from lorablend.app.pictures.png import open_picture
from lorablend.app.service import Service
from lorablend.demo.data_set import draw_data_set
from lorablend.shipped import adapters_dir, model_dir
from lorablend.train.checkpoint import find_checkpoints

STEPS = 12
SIZES = {"steps": STEPS, "batch": 1, "rank": 2, "resolution": 64, "checkpoints": 1, "sample_every": 0, "seed": 3}
ASKED: dict[str, Any] = {"set": "knit", "name": "knit", **SIZES}


def asked(**fields: Any) -> Train:
    return Train.model_validate({**ASKED, **fields})


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures in the style knit, with captions."""
    folder = tmp_path_factory.mktemp("drawn") / "knit"
    draw_data_set(folder, 3, style="knit", size=64)
    return folder


@contextmanager
def opened(root: Path, drawn: Path) -> Iterator[Service]:
    """The service of the demo model in a folder of its own, with the set knit; it is not started."""
    (root / "library").mkdir(parents=True, exist_ok=True)
    service = Service(root / "data", {"demo": model_dir()}, root / "library")
    if not service.sets.names():
        send(service, drawn)
    try:
        yield service
    finally:
        service.close()


def send(service: Service, folder: Path, name: str = "knit") -> None:
    files = [path.open("rb") for path in sorted(folder.iterdir())]
    service.sets.add(name, [(Path(file.name).name, file) for file in files])
    for file in files:
        file.close()


def library(service: Service) -> Path:
    assert service.models.lora_dir is not None
    return service.models.lora_dir


def until(service: Service, job: Job, reached: Callable[[Job], bool]) -> Job:
    for seen in service.jobs.watch(job.id, 60):
        if reached(seen):
            return seen
    raise AssertionError(f"the job ended before: {service.jobs.get(job.id)}")


def training(job: Job) -> bool:
    return job.progress is not None and job.progress.step > 0


# What is refused at once


@pytest.fixture(scope="module")
def idle(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that takes jobs and does none; its library has ink."""
    root = tmp_path_factory.mktemp("idle")
    with opened(root, drawn) as service:
        (root / "library" / "ink.safetensors").write_bytes(b"")
        (root / "data" / "sources").mkdir()
        shutil.copytree(drawn, root / "data" / "sources" / "no model")
        service.sets.add("bare", [("a.png", (drawn / "000.png").open("rb"))])
        service.sets.add("empty", [("a.png", (drawn / "000.png").open("rb"))])
        service.sets.drop("empty", "a.png")
        yield service


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"set": "nosuch"}, "there is no data set 'nosuch'; there are bare, empty, knit"),
        ({"set": "../sets/knit"}, "there is no data set '../sets/knit'"),
        ({"set": "empty"}, "the data set empty has no pictures; add some"),
        ({"set": "bare"}, "none of the 1 pictures in sets/bare has a caption, and there is no trigger word"),
        ({"name": "ink"}, "ink: an adapter of that name is in the library; choose another name"),
        ({"name": "../knit"}, "'../knit' cannot be an adapter's name"),
        ({"name": ".knit"}, "'.knit' cannot be an adapter's name"),
        ({"rank": 0}, "rank is 0: input should be greater than or equal to 1"),
        ({"resolution": 65}, "resolution is 65: input should be a multiple of 8"),
        ({"trigger": "a\nb"}, r"the trigger is 'a\\nb'; give words in one line"),
        ({"model": "/etc"}, "'/etc' is not a known base model; give model as a Hugging Face id"),
        ({"model": "../sources/no model"}, "is not a known base model"),
        ({"model": "no such"}, "such as owner/name, or one of the folder sources: no model"),
        ({"model": "tests/app"}, "'tests/app' is not a known base model"),
        ({"model": "owner/x.safetensors"}, "is not a known base model"),
        ({"model": "no model"}, "no model"),
    ],
)
def test_what_is_refused_at_once(
    idle: Service, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])  # where tests/app is a folder
    for ask in (idle.training.check, idle.training.submit):
        with pytest.raises(LorablendError) as caught:
            ask(asked(**fields))
        assert message in idle.public(str(caught.value))
        assert str(idle.data) not in idle.public(str(caught.value))
    assert idle.jobs.find() == []


@pytest.mark.parametrize("fields", [{"out": "/tmp/x"}, {"data": "/etc"}, {"steps": "many"}, {"algorithm": "loro"}])
def test_what_is_no_request(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        asked(**fields)


def test_where_it_cannot_be_kept(drawn: Path, tmp_path: Path) -> None:
    for library in (None, adapters_dir()):
        service = Service(tmp_path / str(library is None), {"demo": model_dir()}, library)
        send(service, drawn)
        with pytest.raises(RequestError, match="start the server with --lora-dir and a folder of your own"):
            service.training.check(asked())
        service.close()


def test_without_the_extra(idle: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorablend.convert.extras.find_spec", lambda name: None if name == "peft" else True)
    with pytest.raises(MissingExtraError, match=r"train needs peft; run: pip install .*\[train\]"):
        idle.training.check(asked())


def test_a_model_that_is_downloaded_first(idle: Service) -> None:
    """A request is no time for a download of gigabytes; what can be known is said."""
    lines = idle.training.check(asked(model="owner/name", trigger="sks"))
    assert lines[0] == "a folder of pictures; 3 pictures; captions: 3 from .txt files"
    assert lines[-1] == "owner/name is downloaded first; only then can it be checked"


def test_check_and_submit(idle: Service) -> None:
    lines = idle.training.check(asked(trigger="knit"))
    assert "training: 12 steps, 4.0 epochs" in lines
    assert idle.jobs.find() == []
    job = idle.training.submit(asked(), "me")
    try:
        assert (job.kind, job.client, job.request) == ("train", "me", ASKED)
        with pytest.raises(RequestError, match=rf"knit is being trained by job {job.number}; stop it first"):
            idle.training.submit(asked(rank=4))
    finally:
        idle.jobs.cancel(job.id)


def test_a_set_that_a_training_waits_for_stays(idle: Service, drawn: Path) -> None:
    send(idle, drawn, "spare")
    job = idle.training.submit(asked(set="spare", name="spare"))
    with pytest.raises(RequestError, match=f"job {job.number} waits for the data set spare; stop it first"):
        idle.training.remove_set("spare")
    idle.jobs.cancel(job.id)
    idle.training.remove_set("spare")
    assert "spare" not in idle.sets.names()


def test_what_a_training_left_is_removed(idle: Service) -> None:
    """All of it, never of one that waits, and never a file of another name."""
    folder = idle.data / "trainings"
    for name in ("old.training", "older.training"):
        (folder / name).mkdir(parents=True)
        (folder / name / "step-00000004.checkpoint").write_bytes(b"")
    for name in ("old.toml", "old.safetensors", "older.toml"):
        (folder / name).write_text("")
    job = idle.jobs.submit("train", {"set": "knit", "name": "old"})
    with pytest.raises(RequestError, match=f"old is being trained by job {job.number}; stop it first"):
        idle.training.remove("old")
    idle.jobs.cancel(job.id)
    assert (idle.training.is_kept("old"), idle.training.is_kept("older")) == (True, False)
    idle.training.remove("old")
    assert sorted(path.name for path in folder.iterdir()) == ["older.toml", "older.training"]
    for name in ("old", "../data", "", "."):
        with pytest.raises(RequestError, match="there is no training"):
            idle.training.remove(name)
    idle.training.remove("older")
    assert list(folder.iterdir()) == []


def test_begin_anew(idle: Service) -> None:
    folder = idle.data / "trainings" / "knit.training"
    folder.mkdir(parents=True)
    (folder / "step-00000004.checkpoint").write_bytes(b"damaged")
    assert idle.training.resumable("knit") == 4
    with pytest.raises(LorablendError, match=r"step-00000004\.checkpoint is damaged"):
        idle.training.submit(asked())
    assert folder.exists()
    job = idle.training.submit(asked(anew=True))
    assert "anew" not in job.request  # or else a restart would forget again
    assert not folder.exists()
    assert idle.training.resumable("knit") is None
    idle.jobs.cancel(job.id)
    assert [path.name for path in (idle.data / "trainings").iterdir()] == []


# What is done


@pytest.fixture(scope="module")
def whole(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Job]]:
    """A training in one go."""
    with opened(tmp_path_factory.mktemp("whole"), drawn) as service:
        service.start()
        yield service, service.wait(service.training.submit(asked(sample_every=STEPS)))


@pytest.mark.slow
def test_done(whole: tuple[Service, Job]) -> None:
    """The file is in the library and changes pictures; log and samples stay, checkpoints and pictures do not."""
    service, job = whole
    assert job.state == "done", job.reason
    assert (job.result["adapter"], job.result["steps"]) == ("knit", STEPS)
    losses = service.training.losses("knit")
    assert [loss.step for loss in losses] == list(range(1, STEPS + 1))
    assert losses[-1].smoothed == pytest.approx(job.result["loss"], abs=1e-5)
    ((step, sheet),) = service.training.samples("knit")
    assert step == STEPS
    assert open_picture(sheet).width > 64
    file = library(service) / "knit.safetensors"
    assert load_adapter(file).metadata["ss_steps"] == str(STEPS)
    folder = service.data / "trainings" / "knit.training"
    assert find_checkpoints(folder) == []
    assert not (folder / "data").exists()
    assert not list(service.data.rglob("*.part"))
    assert {path.name for path in library(service).iterdir()} == {"knit.safetensors"}

    pictures: list[bytes] = []
    for blend in ([], [["knit", 1.0]]):
        fields = {"prompt": "a fox, in knit style", "steps": 2, "width": 64, "height": 64, "seed": 1, "blend": blend}
        drawn = service.wait(service.draw(Draw.model_validate(fields)))
        assert drawn.state == "done", drawn.reason
        pictures.append(open_picture(service.gallery.path(drawn.result["pictures"][0]["file"])).tobytes())
    assert pictures[0] != pictures[1]
    with pytest.raises(RequestError, match="knit: an adapter of that name is in the library"):
        service.training.submit(asked())


@pytest.mark.slow
def test_a_file_that_was_not_moved_yet(whole: tuple[Service, Job]) -> None:
    """The program ended between the training and the library."""
    service, job = whole
    file = library(service) / "knit.safetensors"
    content = file.read_bytes()
    file.rename(service.data / "trainings" / "knit.safetensors")
    again = service.wait(service.jobs.submit("train", job.request))
    assert (again.state, again.result) == ("done", job.result)
    assert file.read_bytes() == content
    assert not (service.data / "trainings" / "knit.safetensors").exists()


@pytest.mark.slow
def test_a_file_that_could_not_be_moved(whole: tuple[Service, Job]) -> None:
    """Another has its name in the library; once that is gone, the same training asked for again moves the file in."""
    service, job = whole
    file, made = library(service) / "knit.safetensors", service.data / "trainings" / "knit.safetensors"
    content = file.read_bytes()
    file.rename(made)
    file.write_bytes(b"another")
    with pytest.raises(RequestError, match="knit: an adapter of that name is in the library"):
        service.training(job, lambda progress: True)
    assert (file.read_bytes(), made.read_bytes()) == (b"another", content)
    file.unlink()
    with pytest.raises(RequestError, match="knit was trained with other settings; give those, or start over"):
        service.training.check(asked(rank=4))
    same = asked(sample_every=STEPS)
    assert service.training.check(same) == ("knit is trained already, and is added to the library as it is",)
    again = service.wait(service.training.submit(same))
    assert (again.state, again.result) == ("done", job.result)
    assert (file.read_bytes(), made.exists()) == (content, False)


@pytest.mark.slow
def test_a_job_that_a_kill_kept_from_its_end(whole: tuple[Service, Job]) -> None:
    """The file is in the library already: it is this job's own."""
    service, job = whole
    file, made = library(service) / "knit.safetensors", service.data / "trainings" / "knit.safetensors"
    second = dataclasses.replace(job, attempts=2)
    assert service.training(second, lambda progress: True) == job.result
    shutil.copyfile(file, made)  # killed a little earlier
    assert service.training(second, lambda progress: True) == job.result
    assert not made.exists()


@pytest.mark.slow
def test_stopped_and_gone_on_with_it_is_the_same_file(whole: tuple[Service, Job], drawn: Path, tmp_path: Path) -> None:
    """Stopped by a person, gone on with by a new job, put off by the end of the service, done by the next one.

    What is edited in the set meanwhile does not reach it.
    """
    done, _ = whole
    with opened(tmp_path, drawn) as service:
        service.start()
        job = service.training.submit(asked(sample_every=1))  # drawn after each step, so that there is time to stop it
        until(service, job, training)
        service.jobs.cancel(job.id)
        assert service.wait(job).state == "cancelled"
        step = service.training.resumable("knit")
        assert step is not None
        assert 0 < step < STEPS
        with pytest.raises(LorablendError, match="rank is 4, the checkpoint has 2; give that, or start over"):
            service.training.check(asked(rank=4))
        assert f"goes on after step {step}, where it was stopped" in service.training.check(asked())
        job = service.training.submit(asked(sample_every=STEPS))
        service.sets.drop("knit", "001.png")
        until(service, job, lambda seen: seen.state == "running")
    with opened(tmp_path, drawn) as service:
        assert (service.jobs.get(job.id).state, service.jobs.get(job.id).attempts) == ("queued", 0)
        service.start()
        ended = service.wait(job)
        assert ended.state == "done", ended.reason
        assert ended.result["steps"] == STEPS
        assert [loss.step for loss in service.training.losses("knit")] == list(range(1, STEPS + 1))
        assert (library(service) / "knit.safetensors").read_bytes() == (library(done) / "knit.safetensors").read_bytes()


@pytest.mark.slow
def test_why_it_failed(drawn: Path, tmp_path: Path) -> None:
    with opened(tmp_path, drawn) as service:
        job = service.training.submit(asked())
        service.sets.path("knit", "001.png").write_bytes(b"gone bad")  # behind our back
        service.start()
        ended = service.wait(job)
        assert ended.state == "failed"
        assert ended.reason == "001.png is not a picture, or damaged; save it again as PNG or JPEG"

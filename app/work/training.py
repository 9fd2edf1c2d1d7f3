"""Training as a job: checked when it is submitted, done by `lorablend train` in a process of its own.

trainings/NAME.toml          its settings
trainings/NAME.training/     the pictures as they were, checkpoints, samples and the log; the last two stay
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lorablend.adapters.errors import Cancelled, NotFoundError, RequestError, ResumeError, TrainError
from lorablend.adapters.files.atomic import atomic_write, part_of
from lorablend.adapters.wording import shown
from lorablend.app.files import check_name, drop_parts, move_in, place_of
from lorablend.app.jobs.channel import Stage, TrainStep
from lorablend.app.jobs.jobs import Job, JobProgress, Jobs
from lorablend.app.jobs.process import run_child
from lorablend.app.jobs.worker import Report
from lorablend.app.orders.kinds import order_of, submit_order
from lorablend.app.orders.train import Train
from lorablend.app.work.models import Models
from lorablend.app.work.sets import Sets
from lorablend.convert import require_extra
from lorablend.shipped import adapters_dir, model_dir
from lorablend.train.checkpoint import find_checkpoints
from lorablend.train.config import TrainConfig
from lorablend.train.data.layouts import find_examples
from lorablend.train.logs import read_log
from lorablend.train.preflight import check_captions, check_files
from lorablend.train.run import prepare_run

__all__ = ["Loss", "Training"]

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")
_SAMPLES = re.compile(r"samples-(\d+)\.png")
_WAIT = 0.3  # seconds between two attempts to take the lock
_POINTS = 500  # of a curve at most


@dataclass(frozen=True)
class Loss:
    """One point of a curve. smoothed: the loss over about the last fifty steps."""

    step: int
    loss: float
    smoothed: float


class Training:
    """The runner of jobs of the kind "train", whose order is a `Train`; all its files are below `data`."""

    def __init__(self, data: Path, sets: Sets, models: Models, jobs: Jobs) -> None:
        self._folder, self._sources = data / "trainings", data / "sources"
        self._sets, self._models, self._jobs = sets, models, jobs
        self._submitting = threading.Lock()
        for path in self._folder.glob(".*"):  # put aside by a process that was killed
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)

    # Orders

    def check(self, train: Train) -> tuple[str, ...]:
        """Lines for people that say what would be done.

        Raises what `prepare_run` raises, and RequestError for a name that is taken or a model that is unknown here.
        """
        config = self._config(train, self._set(train.set))
        self._check_name(config.out.stem)
        if not self._sets.pictures(train.set):
            raise RequestError(f"the data set {train.set} has no pictures; add some")
        if config.out.exists() and not train.anew:  # it is trained, but could not be moved into the library
            if self._settings(config).read_text(encoding="utf-8") != _with_own_data(config, train).to_toml():
                raise RequestError(f"{config.out.stem} was trained with other settings; give those, or start over")
            return (f"{config.out.stem} is trained already, and is added to the library as it is",)
        self._folder.mkdir(parents=True, exist_ok=True)
        checkpoints = [] if train.anew else find_checkpoints(config.folder)
        if train.anew:  # checked as if there were no earlier training
            config = config.model_copy(update={"out": self._folder / f"{uuid.uuid4().hex}.safetensors"})
        if _HUB_ID.fullmatch(config.model) and not _is_downloaded(config.model):
            return self._check_data(config)
        try:
            run = prepare_run(config, resume=bool(checkpoints))
        except ResumeError as error:
            raise TrainError(f"{error.message}, or start over") from error
        goes_on = [f"goes on after step {_step(checkpoints[-1])}, where it was stopped"] if checkpoints else []
        return (*run.preflight.lines, *goes_on)

    def submit(self, train: Train, client: str = "") -> Job:
        """Queue a training. A stopped one of the same name and settings goes on; learning rates may differ.

        Raises what `check` raises, and QueueFullError.
        """
        with self._submitting:
            self.check(train)
            config = self._config(train, self._folder)
            self._check_idle(config.out.stem)
            order = train.model_copy(update={"name": config.out.stem, "anew": False})
            if not train.anew:
                return submit_order(self._jobs, order, client)
            with _put_aside((config.folder, config.out), self._folder / f".{uuid.uuid4().hex}"):
                return submit_order(self._jobs, order, client)

    def remove_set(self, name: str) -> None:
        """Delete a data set for good.

        Raises NotFoundError if there is none of that name, and RequestError while a training waits for it.
        """
        for job, order in self._active():
            if job.state == "queued" and order.set == name:
                raise RequestError(f"job {job.number} waits for the data set {name}; stop it first")
        self._sets.remove(name)

    def remove(self, name: str) -> None:
        """Delete a training's checkpoints, samples and log. Its adapter stays in the library.

        An adapter that could not be moved into the library is deleted too, see `is_kept`. Raises NotFoundError if
        there is no training of that name, and RequestError while it waits or runs.
        """
        with self._submitting:
            if name not in self.names():
                raise NotFoundError(f"there is no training {name[:80]!r}")
            self._check_idle(name)
            paths = (self._place(name), self._folder / f"{name}.toml", self._folder / f"{name}.safetensors")
            with _put_aside(paths, self._folder / f".{uuid.uuid4().hex}"):
                pass

    def is_kept(self, name: str) -> bool:
        """Whether there is a trained adapter that could not be moved into the library."""
        return (self._folder / f"{check_name(name)}.safetensors").exists()

    def names(self) -> list[str]:
        """The names of all trainings that wait or have begun, whatever became of them."""
        begun = {path.stem for path in self._folder.glob("*.training") if not path.name.startswith(".")}
        return sorted(begun.union(order.name for _, order in self._active()))

    def resumable(self, name: str) -> int | None:
        """The step after which a stopped training would go on; None if there is nothing to go on from."""
        checkpoints = find_checkpoints(self._place(name))
        return _step(checkpoints[-1]) if checkpoints else None

    def losses(self, name: str) -> list[Loss]:
        """The curve of a training, the newest step last; a long one is thinned to some hundred points."""
        lines = [line for line in read_log(self._place(name)) if "loss" in line]
        every = -(-len(lines) // _POINTS) or 1
        thinned = lines[::-every][::-1]
        return [Loss(line["step"], float(line["loss"]), float(line["loss_smoothed"])) for line in thinned]

    def samples(self, name: str) -> list[tuple[int, Path]]:
        """The step and PNG of each sheet of samples, the newest last: left without the adapter, right with it."""
        paths = ((_SAMPLES.fullmatch(path.name), path) for path in sorted(self._place(name).glob("samples-*.png")))
        return sorted((int(match[1]), path) for match, path in paths if match)

    # The job

    def __call__(self, job: Job, report: Report) -> dict[str, Any]:
        """The result: adapter (its name in the library), steps, loss (smoothed, at the end)."""
        train = Train.model_validate(job.request)
        config = _with_own_data(self._config(train, Path()), train)
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = self._folder / "lock"
        _wait_for(lock, report)
        target = self._library() / place_of(config.out.stem, with_config=False)
        # After a kill right before the end of the job, only the last steps are still to be done.
        is_there = job.attempts > 1 and target.exists() and config.folder.exists() and not config.data.exists()
        if not config.out.exists() and not is_there:
            self._check_name(config.out.stem)
            self._train(train, config, lock, report)
        if config.out.exists():
            _settle(config.out, target)
        for path in find_checkpoints(config.folder):
            path.unlink()
        shutil.rmtree(config.folder / "data", ignore_errors=True)
        config.out.unlink(missing_ok=True)
        last = self.losses(config.out.stem)[-1]
        return {"adapter": config.out.stem, "steps": last.step, "loss": round(last.smoothed, 6)}

    def _train(self, train: Train, config: TrainConfig, lock: Path, report: Report) -> None:
        resume = bool(find_checkpoints(config.folder))
        if not resume:
            shutil.rmtree(config.folder, ignore_errors=True)
            self._sets.link(train.set, config.data)
        settings = self._settings(config)
        with atomic_write(settings) as part:
            part.write_text(config.to_toml(), encoding="utf-8")
        arguments = ["train", "--config", str(settings), *(["--resume"] if resume else [])]
        run_child(arguments, lock, report, JobProgress(step=0, steps=0, text="getting ready"), _progress_of)

    # Names

    def _config(self, train: Train, data: Path) -> TrainConfig:
        own = train.settings()
        trigger = own.get("trigger", "")
        if not trigger.isprintable():
            raise RequestError(f"the trigger is {shown(trigger)!r}; give words in one line")
        own["trigger"] = trigger.strip() or None
        out = self._folder / f"{check_name(train.name)}.safetensors"
        return TrainConfig.model_validate({**own, "data": data, "model": self._base(train.model), "out": out})

    def _set(self, name: str) -> Path:
        """The folder of the data set that a training names; its name is part of the request, which is what is wrong."""
        try:
            return self._sets.folder(name)
        except NotFoundError as error:
            raise RequestError(error.message) from error

    def _base(self, model: str | None) -> str:
        """The base model for the trainer. Clients cannot name a path of this machine."""
        is_demo = self._models.folder().resolve() == model_dir().resolve()
        if model == "demo" or (model is None and is_demo):
            return "demo"
        sources = {path.name: path for path in self._sources.iterdir()} if self._sources.is_dir() else {}
        if model in sources:
            return str(sources[model])
        if model and _HUB_ID.fullmatch(model) and not model.endswith(".safetensors") and not Path(model).exists():
            return model
        problem = "no base model is given" if model is None else f"{shown(model)!r} is not a known base model"
        choice = f", or one of the folder sources: {', '.join(sorted(sources))}" if sources else ""
        raise RequestError(f"{problem}; give model as a Hugging Face id such as owner/name{choice}")

    def _check_name(self, name: str) -> None:
        """Raise RequestError if the library has an adapter of that name, or takes no adapters."""
        if os.path.lexists(self._library() / place_of(name, with_config=False)):
            raise RequestError(f"{name}: an adapter of that name is in the library; choose another name")

    def _check_idle(self, name: str) -> None:
        """Raise RequestError if a training of that name waits or runs."""
        for job, order in self._active():
            if order.name == name:
                raise RequestError(f"{name} is being trained by job {job.number}; stop it first")

    def _active(self) -> Iterator[tuple[Job, Train]]:
        """The trainings that run or wait, with their orders."""
        for job in self._jobs.active("train"):
            order = order_of(job)
            assert isinstance(order, Train)
            yield job, order

    def _library(self) -> Path:
        folder = self._models.lora_dir
        if folder is None or folder.resolve() == adapters_dir().resolve():
            raise RequestError(
                "adapters cannot be added here; start the server with --lora-dir and a folder of your own"
            )
        return folder

    def _check_data(self, config: TrainConfig) -> tuple[str, ...]:
        """Check what can be checked before a model is downloaded, which takes longer than a request may."""
        require_extra("train")
        dataset = find_examples(config.data, trigger=config.trigger)
        check_files(dataset)
        check_captions(dataset)
        notes = [f"note: {note}" for note in dataset.notes]
        return (dataset.layout, *notes, f"{config.model} is downloaded first; only then can it be checked")

    def _settings(self, config: TrainConfig) -> Path:
        return self._folder / f"{config.out.stem}.toml"

    def _place(self, name: str) -> Path:
        return self._folder / f"{check_name(name)}.training"


def _progress_of(message: Stage | TrainStep) -> JobProgress:
    assert isinstance(message, TrainStep)
    text = f"step {message.step} of {message.steps} · loss {message.loss:.4f}"
    if message.step == message.steps:
        text = "the last step is done; samples and the file are written"
    return JobProgress(step=message.step, steps=message.steps, eta=message.eta, text=text)


@contextmanager
def _put_aside(paths: Sequence[Path], folder: Path) -> Iterator[None]:
    """Delete the paths at the end of the block; if it fails, they stay as they were."""
    folder.mkdir()
    existing = [path for path in paths if path.exists()]
    for path in existing:
        os.replace(path, folder / path.name)
    try:
        yield
    except BaseException:
        for path in existing:
            os.replace(folder / path.name, path)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(lock: Path, report: Report) -> None:
    """Wait until the child of a killed server has written its checkpoint. Raises Cancelled."""
    while True:
        try:
            FileLock(lock).acquire(timeout=_WAIT).lock.release()
            return
        except Timeout:
            if not report(JobProgress(step=0, steps=0, text="another training is just ending")):
                raise Cancelled("stopped before it began") from None


def _with_own_data(config: TrainConfig, train: Train) -> TrainConfig:
    """The configuration with the pictures linked for this training, which later edits of the set do not reach."""
    return config.model_copy(update={"data": config.folder / "data" / train.set})


def _settle(made: Path, target: Path) -> None:
    """Copy a file into the library, which may be on another disk. A file with the same bytes may be there already.

    Raises RequestError if another file has its name.
    """
    drop_parts(target.parent)
    part = part_of(target)
    try:
        shutil.copyfile(made, part)
        if not move_in(part, target) and not filecmp.cmp(made, target, shallow=False):
            raise RequestError(f"{target.stem}: an adapter of that name is in the library; choose another name")
    finally:
        part.unlink(missing_ok=True)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.stem.rpartition("-")[2])


def _is_downloaded(model: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, "model_index.json"), str)

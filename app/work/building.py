"""Models that are made here: converted, compressed or baked as jobs, found again at the next start, and removed."""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from lorablend.adapters import Blend, resolve_blend
from lorablend.adapters.errors import LorablendError, RequestError, ResourceError
from lorablend.adapters.wording import shown
from lorablend.app.files import clean_name
from lorablend.app.jobs.channel import Stage, TrainStep
from lorablend.app.jobs.jobs import Job, JobProgress, Jobs
from lorablend.app.jobs.process import run_child
from lorablend.app.jobs.worker import Report, Runner
from lorablend.app.orders.build import Bake, Compress, Convert
from lorablend.app.orders.draw import Draw
from lorablend.app.orders.kinds import order_of, submit_order
from lorablend.app.pictures.uploads import Uploads
from lorablend.app.work.models import Models
from lorablend.app.work.sources import Sources
from lorablend.convert import require_extra
from lorablend.convert.compress import is_compressed
from lorablend.engine import ModelFolder
from lorablend.engine.attach import check_attach
from lorablend.engine.mask import open_mask
from lorablend.engine.parts import refuse_unbakeable

__all__ = ["KINDS", "Bake", "Building", "Compress", "Convert"]

_LOG = logging.getLogger(__name__)

KINDS = ("convert", "compress", "bake")
_STAGES = {"download": "downloading", "done": "almost done"}
_SPARE = 64 << 20  # bytes left free on the disk


class Building:
    """The runners of jobs of `KINDS`, and the models in `DATA/models` that they make.

    Models that are there already are added to `models`; a broken one is left out, with a line in the log.
    """

    def __init__(self, models: Models, uploads: Uploads, jobs: Jobs, data: Path) -> None:
        self._models, self._uploads, self._jobs = models, uploads, jobs
        self._folder = data.absolute() / "models"
        self._served = frozenset(models.names)
        beside = {models.folder(name).absolute().parent for name in models.names}
        self.sources = Sources([data.absolute() / "sources", *sorted(beside)])
        self._broken: dict[str, str] = {}
        self._clean()
        for name, folder in self._finished():
            try:
                ModelFolder(folder)
            except (LorablendError, OSError, SyntaxError, ValueError) as error:
                _LOG.warning("the model %s is left out: %s", name, error)
                self._broken[name] = str(error)
                continue
            models.add(name, folder)

    # Models

    def is_own(self, name: str) -> bool:
        """Whether the model was made here and can be removed."""
        return name not in self._served and (name in self._models.names or name in self._broken)

    def models(self) -> list[dict[str, Any]]:
        """A dict for each model: name, family, size (bytes), default, own, origin (in words), error ("" if none)."""
        forms = []
        for name in self._models.names:
            try:
                folder = self._models.folder(name)
                family = self._models.get(name).model.family
            except LorablendError:  # it was just removed
                continue
            forms.append(
                {
                    "name": name,
                    "family": family,
                    "size": _size(folder),
                    "default": name == self._models.names[0],
                    "own": self.is_own(name),
                    "origin": _origin(folder),
                    "error": "",
                }
            )
        for name, error in self._broken.items():
            form = {"name": name, "family": "", "size": _size(self._folder / name), "default": False, "own": True}
            forms.append({**form, "origin": "", "error": error})
        return forms

    def free(self) -> int:
        """Bytes free on the disk of the models made here."""
        return psutil.disk_usage(str(self._folder if self._folder.exists() else self._folder.parent)).free

    # Orders

    def convert(self, asked: Convert, client: str = "") -> Job:
        """Queue a conversion.

        Raises:
            RequestError: The name is taken, or there is no such source.
            ModelError: A source on this machine is incomplete.
            MissingExtraError: lorablend[convert] is not installed.
            ResourceError: There is not enough disk.
            QueueFullError: As many jobs are waiting as may wait.
        """
        self._check_name(asked.name)
        require_extra("convert")
        self._check_space(asked.name, self.sources.needed(asked.source, asked.weights, asked.config))
        return submit_order(self._jobs, asked, client)

    def compress(self, asked: Compress, client: str = "") -> Job:
        """Queue a copy of a model with its weights in 8 bits. Raises what `convert` raises."""
        self._check_name(asked.name)
        require_extra("convert")
        folder = self._models.folder(asked.model)
        if is_compressed(ModelFolder(folder)):
            raise RequestError(f"{asked.model or self._models.names[0]} already has its weights in 8 bits")
        self._check_space(asked.name, round(1.5 * _size(folder)))
        return submit_order(self._jobs, asked, client)

    def bake(self, asked: Bake, client: str = "") -> Job:
        """Queue a copy of a model with a blend in its weights.

        Raises what `convert` raises, and BlendError or AdapterError for a blend that cannot be baked.
        """
        self._check_name(asked.name)
        self._blend(asked)
        self._check_space(asked.name, _size(self._models.folder(asked.model)))
        return submit_order(self._jobs, asked, client)

    def remove(self, name: str) -> None:
        """Delete a model that was made here. Raises RequestError for any other, and for one that a job needs."""
        if name not in self._models.names and name not in self._broken:
            raise RequestError(f"there is no model {shown(name)!r}; there are {', '.join(self._models.names)}")
        if not self.is_own(name):
            raise RequestError(f"the model {name} was not made here; delete its folder when no server uses it")
        for state in ("running", "queued"):
            for job in self._jobs.find(state=state, limit=1000):
                if getattr(order_of(job), "model", None) == name:
                    raise RequestError(f"job {job.number} needs the model {name}; wait for it, or cancel it")
        self._models.remove(name)
        self._broken.pop(name, None)
        gone = self._folder / f".{uuid.uuid4().hex}"
        with suppress(FileNotFoundError):  # it was deleted meanwhile
            (self._folder / name).rename(gone)  # in one step, so that half a model is never found
        shutil.rmtree(gone, ignore_errors=True)

    # The runners

    @property
    def runners(self) -> dict[str, Runner]:
        """The runners, by the kinds of their jobs."""
        return dict(zip(KINDS, (self.run_convert, self.run_compress, self.run_bake), strict=True))

    def run_convert(self, job: Job, report: Report) -> dict[str, Any]:
        """The result: model, its name."""
        asked = Convert.model_validate(job.request)
        source = self.sources.find(asked.source)
        arguments = ["convert", str(source), str(self._folder / asked.name), "--weights", asked.weights]
        if asked.config is not None:
            arguments += ["--config", str(self.sources.local(asked.config))]
        return self._run(job, asked.name, arguments, report, "getting ready")

    def run_compress(self, job: Job, report: Report) -> dict[str, Any]:
        """The result: model, its name."""
        asked = Compress.model_validate(job.request)
        model = self._models.folder(asked.model).absolute()
        arguments = ["compress", str(model), str(self._folder / asked.name)]
        return self._run(job, asked.name, arguments, report, "getting ready")

    def run_bake(self, job: Job, report: Report) -> dict[str, Any]:
        """The result: model, its name."""
        asked = Bake.model_validate(job.request)
        form = self._folder / f".{job.number}.json"
        self._folder.mkdir(parents=True, exist_ok=True)
        form.write_text(json.dumps(_with_paths(self._blend(asked))), encoding="utf-8")
        model, out = self._models.folder(asked.model).absolute(), self._folder / asked.name
        try:
            return self._run(job, asked.name, ["bake", str(model), str(out), "--blend", str(form)], report, "baking")
        finally:
            form.unlink(missing_ok=True)

    def _run(self, job: Job, name: str, arguments: Sequence[str], report: Report, text: str) -> dict[str, Any]:
        if job.attempts > 1 and name in self._models.names:  # the server was killed right after the model was made
            return {"model": name}
        self._check_name(name, but=job)
        self._folder.mkdir(parents=True, exist_ok=True)

        run_child(arguments, self._lock, report, JobProgress(step=0, steps=1, text=text), _progress_of)
        self._models.add(name, self._folder / name)
        return {"model": name}

    # Checks

    def _check_name(self, name: str, but: Job | None = None) -> None:
        """Raise RequestError for a name that cannot be used. but: the job that makes the model."""
        if not name:
            raise RequestError("the new model has no name; give it one")
        if name != clean_name(name):
            raise RequestError(f"{shown(name)!r} cannot be a model's name; give one without any of / \\ : < > \" | ? *")
        taken = {path.name.casefold() for path in self._folder.glob("*")}
        if name.casefold() in taken | {known.casefold() for known in self._models.names}:
            raise RequestError(f"there is a model {name} already; choose another name, or remove that model")
        for job in self._jobs.active(*KINDS):
            order = order_of(job)
            assert isinstance(order, (Convert, Compress, Bake))
            if order.name.casefold() == name.casefold() and (but is None or job.id != but.id):
                raise RequestError(f"job {job.number} makes a model {name}; choose another name")

    def _check_space(self, name: str, needed: int) -> None:
        if needed + _SPARE > self.free():
            raise ResourceError(
                f"{name} needs about {needed / 1e9:.1f} GB of disk, {self.free() / 1e9:.1f} GB is free; remove a model"
            )

    def _blend(self, asked: Bake) -> Blend:
        """The blend, resolved and checked."""
        model = self._models.get(asked.model).model
        draw = Draw(prompt="", blend=asked.blend, model=asked.model)
        entries = draw.settings(self._uploads)["blend"]
        entries = [entries] if isinstance(entries, dict) else entries
        blend = resolve_blend(entries, self._models.lora_dir, open_mask=open_mask)
        if not blend.items:
            raise RequestError("there is nothing to bake; give a blend with at least one adapter")
        refuse_unbakeable(blend)
        check_attach(blend, model.parameters, model.family)
        return blend

    # The folder

    @property
    def _lock(self) -> Path:
        return self._folder / ".lock"

    def _finished(self) -> Iterator[tuple[str, Path]]:
        for folder in sorted(self._folder.glob("*")):
            if folder.is_dir() and not folder.name.startswith("."):
                if folder.name in self._served:
                    _LOG.warning("the model %s is left out: the server has another model of that name", folder.name)
                else:
                    yield folder.name, folder

    def _clean(self) -> None:
        """Remove what killed jobs left, unless a job of an earlier server is still working."""
        if not self._lock.exists():
            return
        try:
            with FileLock(self._lock, timeout=0):
                for path in self._folder.glob(".*"):
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    elif path.suffix == ".json":
                        path.unlink(missing_ok=True)
        except Timeout:
            _LOG.warning("a job of an earlier server is still working in %s", self._folder.name)


def _progress_of(message: Stage | TrainStep) -> JobProgress:
    assert isinstance(message, Stage)
    text = _STAGES.get(message.stage, f"working on {message.stage.replace('_', ' ')}")
    return JobProgress(step=message.done, steps=message.stages, text=text)


def _with_paths(blend: Blend) -> dict[str, Any]:
    """The blend's JSON form with paths in place of names, so that the child finds the very same files."""
    form = blend.to_dict()
    for item, adapter in zip(form["items"], (item.adapter for item in blend.items), strict=True):
        item["adapter"] = str(adapter.path.absolute())
    return form


def _size(folder: Path) -> int:
    """The bytes of all files in a folder; 0 if it is removed meanwhile."""
    try:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    except FileNotFoundError:
        return 0


def _origin(folder: Path) -> str:
    """The origin in lorablend.json, as in "owner/name · int8 · with ink 0.8"."""
    try:
        record = json.loads((folder / "lorablend.json").read_text(encoding="utf-8"))
        baked = ", ".join(f"{one['name']} {one['weight']:g}" for one in record.get("blend", ()))
        parts = [record.get("source"), record.get("weights"), baked and f"with {baked}"]
        return " · ".join(str(part) for part in parts if part)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""

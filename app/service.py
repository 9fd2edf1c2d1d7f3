"""What stands behind page, REST and MCP: the queue, the worker, the gallery, the models, the library.

data/jobs.sqlite      the queue
data/gallery.sqlite   an index that is made again if it is lost
data/pictures/        by day
data/uploads/         pictures that requests start from, for a week
data/sheets/          of grids
data/sets/            pictures to train on
data/trainings/       checkpoints, samples and logs
data/models/          converted and baked ones
data/gradio/          the page's copies of pictures, deleted at the next start
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import ResourceError
from lorablend.app.files import check_folder, without_folders
from lorablend.app.jobs.jobs import ENDED, Job, Jobs
from lorablend.app.jobs.metrics import Metrics
from lorablend.app.jobs.worker import Worker
from lorablend.app.orders.compare import DrawOrder
from lorablend.app.orders.draw import Draw
from lorablend.app.orders.kinds import refuse_unreadable, submit_order
from lorablend.app.pictures.gallery import Gallery
from lorablend.app.pictures.uploads import Uploads
from lorablend.app.work.adding import Adding
from lorablend.app.work.building import Building
from lorablend.app.work.drawing import Drawing
from lorablend.app.work.grids import Grids
from lorablend.app.work.models import Models
from lorablend.app.work.sets import Sets
from lorablend.app.work.training import Training

__all__ = ["RECEIVING", "Service"]

RECEIVING = ".receiving-"
"""What folders begin with that hold a file while it is sent; removed at the next start after a kill."""


class Service:
    """models: name -> folder, the first one is the default. limit: jobs that may wait. options: of `Pipeline`.

    Raises RequestError for a data folder that cannot be written to, ResourceError for a full disk, ModelError for a
    broken model.
    """

    def __init__(
        self, data: Path, models: Mapping[str, Path], lora_dir: Path | None = None, *, limit: int = 64, **options: Any
    ) -> None:
        check_folder(data)
        # Absolute, for messages are searched for them: of "." only the dots would be found.
        data, lora_dir = data.absolute(), None if lora_dir is None else lora_dir.absolute()
        models = {name: folder.absolute() for name, folder in models.items()}
        self.data = data
        self.hide = tuple(folder for folder in (data, lora_dir, *models.values()) if folder is not None)
        self.models = Models(models, lora_dir, **options)
        self.models.get()  # a broken one is known of before the server listens
        try:
            self.gallery = Gallery(data / "pictures", data / "gallery.sqlite")
            self.jobs = Jobs(data / "jobs.sqlite", limit)
        except sqlite3.OperationalError as error:
            raise ResourceError(f"{data} cannot be read and written ({error}); make room on its disk") from error
        self.uploads = Uploads(data / "uploads")
        self.drawing = Drawing(self.models, self.gallery, self.uploads)
        for left in data.glob(f"{RECEIVING}*"):
            shutil.rmtree(left, ignore_errors=True)
        self.uploads.drop_old(json.dumps([job.request for job in self._jobs_to_keep()]))
        self.grids = Grids(self.models, self.gallery, self.uploads, self.jobs, data / "sheets")
        self.building = Building(self.models, self.uploads, self.jobs, data)
        self.hide += tuple(place for place in self.building.sources.places if place != place.parent)
        self.hide += (Path.home(),)  # where the caches are
        self.sets = Sets(data / "sets")
        self.training = Training(data, self.sets, self.models, self.jobs)
        self.adding = Adding(self.models, self.jobs)
        # What takes minutes or hours has a worker of its own, so that pictures are drawn meanwhile; so have downloads.
        short = {"draw": self.drawing, "grid": self.grids}
        long = self.building.runners
        long["train"] = self.training
        all_runners = (short, long, {"add": self.adding})
        self.workers = tuple(Worker(self.jobs, runners, self.hide) for runners in all_runners)
        self.metrics = Metrics(self.jobs, lambda: self.alive)
        refuse_unreadable(self.jobs)

    def _jobs_to_keep(self) -> list[Job]:
        """Those that wait, and those of which a picture is still there, whose settings can be used again."""
        files = self.gallery.files()
        return [
            job
            for job in self.jobs.find(limit=sys.maxsize)
            if job.state == "queued"
            or (
                job.kind in ("draw", "grid")
                and job.result
                and any(one["file"] in files for one in job.result["pictures"])
            )
        ]

    def start(self) -> None:
        for worker in self.workers:
            worker.start()

    @property
    def alive(self) -> bool:
        """Whether what is queued is going to be done."""
        return all(worker.alive for worker in self.workers)

    def close(self) -> None:
        """Running jobs end after their present step, and are queued again at the next start."""
        for worker in self.workers:
            worker.stop()
        for worker in self.workers:
            worker.join(timeout=120)
        self.jobs.close()
        self.gallery.close()

    def draw(self, draw: Draw, client: str = "") -> Job:
        """Queue a drawing. Raises at once what is wrong with it: QueueFullError, and see `Pipeline.check`."""
        draw = draw.with_seed()
        self.drawing.check(draw)
        return submit_order(self.jobs, DrawOrder.model_validate(draw.model_dump(exclude_defaults=True)), client)

    def wait(self, job: Job, timeout: float | None = None) -> Job:
        """The job when it has ended, or as it is after `timeout` seconds without a change."""
        for seen in self.jobs.watch(job.id, timeout or 3600.0):
            if seen.state in ENDED or timeout is not None:
                job = seen
            if seen.state in ENDED:
                break
        return job

    def public(self, text: str) -> str:
        """A message without this machine's folders."""
        return without_folders(text, self.hide)

"""What page, REST and MCP share: the queue, the workers, the gallery, the models, the library.

data/jobs.sqlite      the queue
data/gallery.sqlite   an index that is rebuilt if it is lost
data/pictures/        by day
data/uploads/         pictures that requests start from, kept for a week
data/sheets/          sheets of grids
data/sets/            pictures to train on
data/trainings/       checkpoints, samples and logs
data/models/          converted, compressed and baked models
data/gradio/          the page's copies of pictures, deleted at the next start
data/spool/           uploads that are arriving
data/cookie.key       signs the cookies of those who have logged in
"""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import ResourceError
from lorablend.app.files import check_folder, private_folder, without_folders
from lorablend.app.jobs.jobs import ENDED, HISTORY, Job, Jobs
from lorablend.app.jobs.metrics import Metrics
from lorablend.app.jobs.worker import Worker
from lorablend.app.library.shelf import Shelf
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

_LOG = logging.getLogger(__name__)
_PROBE = 64 << 10  # bytes that a look at the disk writes

RECEIVING = ".receiving-"
"""The prefix of folders that hold a file while it is received; they are removed at the next start after a kill."""

_PATIENCE = 4.0  # seconds for all workers together to end; with the server's own for requests, less than ten


class Service:
    """The service of one data folder.

    Args:
        data: The data folder; it is made if it does not exist.
        models: Names and folders of models, the default first.
        lora_dir: The library.
        limit: As in `Jobs`.
        history: How many jobs that have ended are kept. No picture is ever deleted with one.
        options: Further arguments of `Pipeline`.

    Raises:
        RequestError: The data folder cannot be written to.
        ResourceError: The disk is full.
        ModelError: A model is broken.
    """

    def __init__(
        self,
        data: Path,
        models: Mapping[str, Path],
        lora_dir: Path | None = None,
        *,
        limit: int = 64,
        history: int = HISTORY,
        **options: Any,
    ) -> None:
        check_folder(data)
        private_folder(data)
        # Absolute, because messages are searched for them; of "." only the dots would match.
        data, lora_dir = data.absolute(), None if lora_dir is None else lora_dir.absolute()
        models = {name: folder.absolute() for name, folder in models.items()}
        self.data = data
        self.hide = tuple(folder for folder in (data, lora_dir, *models.values()) if folder is not None)
        self.models = Models(models, lora_dir, **options)
        self.shelf = Shelf(lora_dir)
        self.models.get()  # so that a broken default is noticed before the server listens
        try:
            self.gallery = Gallery(data / "pictures", data / "gallery.sqlite")
            self.jobs = Jobs(data / "jobs.sqlite", limit, history)
        except sqlite3.OperationalError as error:
            raise ResourceError(f"{data} cannot be read and written ({error}); make room on its disk") from error
        self.uploads = Uploads(data / "uploads")
        self.drawing = Drawing(self.models, self.gallery, self.uploads)
        for part in data.glob(f"{RECEIVING}*"):
            shutil.rmtree(part, ignore_errors=True)
        self.uploads.drop_old(self._uses_of_uploads)
        self.grids = Grids(self.models, self.gallery, self.uploads, self.jobs, data / "sheets")
        self.building = Building(self.models, self.uploads, self.jobs, data)
        self.hide += tuple(place for place in self.building.sources.places if place != place.parent)
        self.hide += (Path.home(),)  # where the caches are
        self.sets = Sets(data / "sets")
        self.training = Training(data, self.sets, self.models, self.jobs)
        self.adding = Adding(self.models, self.jobs)
        # Long jobs and downloads have workers of their own, so that pictures are drawn meanwhile.
        short = {"draw": self.drawing, "grid": self.grids}
        long = self.building.runners
        long["train"] = self.training
        all_runners = (short, long, {"add": self.adding})
        self.workers = tuple(Worker(self.jobs, runners, self.hide) for runners in all_runners)
        self._trouble = ""
        self.metrics = Metrics(self.jobs, lambda: self.alive)
        refuse_unreadable(self.jobs)

    def _uses_of_uploads(self) -> str:
        """The orders that wait, and those with a picture in the gallery, whose settings can be used again, as text."""
        files = self.gallery.files()
        return json.dumps(
            [
                job.request
                for job in self.jobs.mentioning('"image":', '"mask":')
                if job.state == "queued"
                or (
                    job.kind in ("draw", "grid")
                    and job.result
                    and any(picture["file"] in files for picture in job.result["pictures"])
                )
            ]
        )

    def start(self) -> None:
        """Start the workers."""
        for worker in self.workers:
            worker.start()

    @property
    def alive(self) -> bool:
        """Whether all workers are alive, so that queued jobs will be done."""
        return all(worker.alive for worker in self.workers)

    def trouble(self) -> str:
        """Why jobs cannot be done although the workers are alive, most likely a full disk; "" if they can.

        It is in the log when it begins.
        """
        trouble = next((worker.trouble for worker in self.workers if worker.trouble), "")
        try:
            with tempfile.TemporaryFile(buffering=0, dir=self.data) as probe:
                probe.write(bytes(_PROBE))
        except OSError as error:
            trouble = f"{self.data} cannot be written to ({error.strerror}); make room on its disk"
        if trouble and not self._trouble:
            _LOG.error("%s", trouble)
        self._trouble = trouble
        return trouble

    def close(self) -> bool:
        """End all workers, within some seconds; returns whether all have ended.

        Running jobs end after their present step and are queued again. So are those that do not end in time.
        """
        for worker in self.workers:
            worker.stop()
        end = time.monotonic() + _PATIENCE
        ended = [worker.join(max(0.0, end - time.monotonic())) for worker in self.workers]
        self.jobs.close()
        self.gallery.close()
        return all(ended)

    def draw(self, draw: Draw, client: str = "") -> Job:
        """Queue a drawing. Raises QueueFullError, and what `Pipeline.check` raises."""
        draw = draw.with_seed()
        self.drawing.check(draw)
        return submit_order(self.jobs, DrawOrder.model_validate(draw.model_dump(exclude_defaults=True)), client)

    def wait(self, job: Job, timeout: float | None = None) -> Job:
        """Wait for the end of a job, or for `timeout` seconds without a change, and return the job as it is then."""
        for now in self.jobs.watch(job.id, timeout or 3600.0):
            if now.state in ENDED or timeout is not None:
                job = now
            if now.state in ENDED:
                break
        return job

    def public(self, text: str) -> str:
        """A message without this machine's folders."""
        return without_folders(text, self.hide)

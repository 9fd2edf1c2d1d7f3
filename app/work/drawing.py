"""Drawing as a job: pictures go into the gallery one by one, none twice."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import Cancelled
from lorablend.app.jobs.jobs import GETTING_READY, Job, JobProgress
from lorablend.app.jobs.worker import Report
from lorablend.app.library.use import note_used
from lorablend.app.orders.compare import DrawOrder
from lorablend.app.orders.draw import Draw
from lorablend.app.pictures.gallery import Gallery
from lorablend.app.pictures.png import check_texts, encode, save_picture, text_chunks
from lorablend.app.pictures.uploads import Uploads
from lorablend.app.work.models import Models
from lorablend.engine import Request, Step

__all__ = ["Drawing"]

_SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


class Drawing:
    """The runner of jobs of the kind "draw", whose order is a `DrawOrder`."""

    def __init__(self, models: Models, gallery: Gallery, uploads: Uploads) -> None:
        self._models, self._gallery, self._uploads = models, gallery, uploads

    def check(self, draw: Draw) -> Request:
        """The request that would be drawn; called when a job is submitted.

        Raises what `Pipeline.check` and `check_texts` raise.
        """
        request = self._models.get(draw.model).check(**draw.settings(self._uploads))
        check_texts(request, draw.format)
        return request

    def __call__(self, job: Job, report: Report) -> dict[str, Any]:
        """The result: pictures (file in the gallery, seed, seconds), warnings."""
        draw = DrawOrder.model_validate(job.request)
        assert draw.seed is not None  # chosen when the job was submitted
        pipeline = self._models.take(draw.model)
        settings = draw.settings(self._uploads)
        pictures, warnings, decode = [], dict[str, None](), None
        for index, seed in enumerate(range(draw.seed, draw.seed + draw.count)):
            path = self._path(job, seed, draw.format)
            seconds = 0.0
            if not path.exists():  # otherwise the job was interrupted after this picture
                follow = _DrawProgress(report, index, draw.count, decode)
                follow.begin()
                settings["seed"] = seed
                result = pipeline.generate(**settings, callback=follow.step)
                save_picture(result.images[0], path, text_chunks(result, seed, pipeline))
                note_used(self._models.lora_dir, result.blend)
                warnings |= dict.fromkeys(result.warnings)
                seconds, decode = result.timings["total"], result.timings["decode"]
            pictures.append({"file": self._gallery.add(path).file, "seed": seed, "seconds": round(seconds, 3)})
        return {"pictures": pictures, "warnings": list(warnings)}

    def _path(self, job: Job, seed: int, kind: str) -> Path:
        """The path of a picture, the same in every attempt of the job."""
        when = datetime.fromtimestamp(job.submitted)
        name = f"{when:%H%M%S}-{job.number}-{seed}{_SUFFIX[kind]}"
        return self._gallery.day(when) / name


class _DrawProgress:
    """Turns the steps of one picture into the progress of the whole job.

    decode: Seconds that it took to decode the previous picture; None is taken for about a step.
    """

    def __init__(self, report: Report, index: int, count: int, decode: float | None) -> None:
        self._report, self._index, self._count, self._decode = report, index, count, decode
        self._first = 0.0

    def begin(self) -> None:
        """Report that the picture begins. Raises Cancelled if the job should end."""
        if not self._report(JobProgress(step=self._index, steps=self._count, text=GETTING_READY)):
            raise Cancelled("stopped before the first step")

    def step(self, step: Step) -> bool:
        """The callback for `Pipeline.generate`."""
        if step.index == 0:
            self._first = time.perf_counter()
        done, steps = self._index * step.steps + step.index + 1, self._count * step.steps
        eta = None
        if step.index:
            each = (time.perf_counter() - self._first) / step.index
            decode = each if self._decode is None else self._decode
            eta = each * (steps - done) + decode * (self._count - self._index)
        text, preview = "decoding" if step.index + 1 == step.steps else "", encode(step.preview(), "png", {})
        return self._report(JobProgress(step=done, steps=steps, eta=eta, preview=preview, text=text))

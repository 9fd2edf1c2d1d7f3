"""Grids as jobs: every picture goes into the gallery, and the sheet into a folder of its own."""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from lorablend.adapters.blends.tags import checked_name
from lorablend.adapters.errors import Cancelled, LorablendError, NotFoundError, RequestError
from lorablend.adapters.files.find import find_adapter
from lorablend.app.grid.axes import Axis, parse_axis
from lorablend.app.grid.grid import Cell, draw_grid
from lorablend.app.grid.plan import check_axes, plan_grid
from lorablend.app.jobs.jobs import Job, JobProgress, Jobs
from lorablend.app.jobs.worker import Report
from lorablend.app.library.use import note_used
from lorablend.app.orders.compare import DrawOrder
from lorablend.app.orders.draw import Draw
from lorablend.app.orders.grid import DrawGrid
from lorablend.app.orders.kinds import submit_order
from lorablend.app.pictures.gallery import Gallery
from lorablend.app.pictures.png import check_texts, encode, open_picture, save_picture, text_chunks
from lorablend.app.pictures.uploads import Uploads
from lorablend.app.work.models import Models
from lorablend.engine import Step
from lorablend.engine.settings import SETTINGS

__all__ = ["Grids", "named_axis"]

_SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_SHEET = re.compile(r"\d{4}-\d\d-\d\d-\d{6}-\d+\.png")
_RECENT = 20  # jobs that an estimate is made from


class Grids:
    """The runner of jobs of the kind "grid", whose order is a `DrawGrid`. folder: where the sheets are."""

    def __init__(self, models: Models, gallery: Gallery, uploads: Uploads, jobs: Jobs, folder: Path) -> None:
        self._models, self._gallery, self._uploads, self._jobs = models, gallery, uploads, jobs
        self._folder = folder
        for part in folder.glob(".*.part"):  # of a process that was killed
            part.unlink(missing_ok=True)

    def submit(self, asked: DrawGrid, client: str = "") -> Job:
        """Queue a grid. Raises QueueFullError, and what `check` raises."""
        seeded = asked.with_seed()
        assert isinstance(seeded, DrawGrid)
        self.check(seeded)
        return submit_order(self._jobs, seeded, client)

    def check(self, asked: DrawGrid) -> int:
        """The number of pictures in a grid. Raises what drawing any of them would raise, see `Pipeline.check`."""
        if asked.count != 1:
            raise RequestError(f"count is {asked.count}; a grid draws each of its pictures once, leave it out")
        pipe = self._models.get(asked.model)
        settings, lora_dir = asked.settings(self._uploads), self._models.lora_dir
        prompt, negative, blend = (settings.pop(name) for name in ("prompt", "negative_prompt", "blend"))
        planned = plan_grid(pipe, prompt, negative, self.axes(asked), blend, lora_dir, settings)
        for index, cell in enumerate(planned):
            own = dict(cell.settings)
            if index and own["image"] is not None:  # the first cell has checked it; scaling it once is enough
                own |= {"image": Image.new("RGB", (64, 64)), "mask": None}
            check_texts(pipe.check(cell.prompt, cell.negative_prompt, blend=cell.blend, **own), asked.format)
        return len(planned)

    def axes(self, asked: DrawGrid) -> list[Axis]:
        """The parsed axes. Raises RequestError, and BlendError for an adapter that is not in the library."""
        axes = [named_axis(text, self._models.lora_dir) for text in asked.axes]
        check_axes(axes)
        return axes

    def estimate(self, asked: DrawGrid) -> tuple[int, float | None]:
        """The number of pictures, and about how many seconds they take, judging by recent jobs; None if none compares.

        This reads no adapter, so that the page may call it on every keystroke. Raises what `axes` raises.
        """
        axes = self.axes(asked)
        count = math.prod(len(axis.values) for axis in axes)
        done = (job for job in self._jobs.find(state="done", limit=_RECENT) if job.kind in ("draw", "grid"))
        rates = [rate for job in done if (rate := self._rate(job, asked.model))]
        if not rates:
            return count, None
        return count, min(rates) * _swept(asked, axes) * self._pixels(asked)  # the least: other jobs compiled

    def _rate(self, job: Job, model: str | None) -> float:
        """Seconds per step and pixel; 0 if the job says nothing about this model."""
        try:
            asked: Draw = (DrawGrid if job.kind == "grid" else DrawOrder).model_validate(job.request)
            axes = self.axes(asked) if isinstance(asked, DrawGrid) else []
        except (LorablendError, ValueError):  # an adapter that is gone, a job of another version
            return 0.0
        seconds = [picture["seconds"] for picture in job.result["pictures"]]
        if asked.model != model or not all(seconds):
            return 0.0
        every = statistics.median(seconds) * len(seconds)  # the first picture may include compiling
        return every / (_swept(asked, axes) * asked.count * self._pixels(asked))

    def __call__(self, job: Job, report: Report) -> dict[str, Any]:
        """The result: sheet (a file's name), pictures (as of a drawing, with their phrases), warnings."""
        asked = DrawGrid.model_validate(job.request)
        pipe, axes = self._models.take(asked.model), self.axes(asked)
        follow = _GridProgress(report, round(_swept(asked, axes, guidance=False)))
        pictures, warnings, used = dict[int, dict[str, Any]](), dict[str, None](), dict[Any, Any]()

        def there(number: int) -> Image.Image | None:
            path = self._path(job, number, asked.format)
            return open_picture(path) if path.is_file() else None

        def keep(cell: Cell) -> None:
            path, result = self._path(job, cell.number, asked.format), cell.result
            if not path.exists():
                save_picture(result.images[0], path, text_chunks(result, result.request.seed, pipe))
            follow.done(result.request.steps * (result.request.strength or 1))
            warnings.update(dict.fromkeys(result.warnings))
            used[tuple(item.adapter.path for item in result.blend)] = result.blend
            pictures[cell.number] = {
                "file": self._gallery.add(path).file,
                "seed": result.request.seed,
                "seconds": round(result.timings["total"], 3),
                "phrases": list(cell.phrases),
            }

        grid = draw_grid(
            pipe,
            axes=axes,
            lora_dir=self._models.lora_dir,
            callback=follow.step,
            progress=follow.picture,
            each=keep,
            there=there,
            **asked.settings(self._uploads),
        )
        sheet = self._folder / f"{datetime.fromtimestamp(job.submitted):%Y-%m-%d-%H%M%S}-{job.number}.png"
        save_picture(grid.sheet, sheet, {"lorablend-grid": grid.to_json(pipe)})
        for blend in used.values():
            note_used(self._models.lora_dir, blend)
        ordered = [pictures[number] for number in sorted(pictures)]
        return {"sheet": sheet.name, "pictures": ordered, "warnings": list(warnings)}

    def sheets(self, limit: int = 12) -> list[str]:
        """The names of the newest sheets, the newest first."""
        names = [path.name for path in self._folder.glob("*.png") if _SHEET.fullmatch(path.name)]
        return sorted(names, key=lambda name: (name[:17], int(name[18:-4])), reverse=True)[:limit]

    def sheet(self, file: str) -> Path:
        """The path of a sheet. Raises NotFoundError if there is no sheet of that name, which is never a path."""
        path = self._folder / file if _SHEET.fullmatch(file) else None
        if path is None or not path.is_file():
            raise NotFoundError(f"there is no sheet {file[:80]!r}; /api/sheets lists them all")
        return path

    def delete(self, file: str) -> None:
        """Delete a sheet for good; its pictures stay in the gallery. Raises as `sheet`."""
        self.sheet(file).unlink(missing_ok=True)

    def _path(self, job: Job, number: int, kind: str) -> Path:
        """Always the same for the same picture."""
        when = datetime.fromtimestamp(job.submitted)
        return self._gallery.day(when) / f"{when:%H%M%S}-{job.number}-{number:03d}{_SUFFIX[kind]}"

    def _pixels(self, draw: Draw) -> int:
        try:
            width, height = self._models.get(draw.model).model.default_size
        except LorablendError:  # a model that is gone
            width = height = 1024
        return (draw.width or width) * (draw.height or height)


def named_axis(text: str, lora_dir: Path | None) -> Axis:
    """As `parse_axis`, for text from a client: adapters are names in `lora_dir`, never paths or patterns."""
    head, equals, rest = text.partition("=")
    if equals and head.strip() == "checkpoint":
        names = [checked_name(name.strip()) for name in rest.split(",") if name.strip()]
        return Axis(name="checkpoint", values=tuple(find_adapter(name, lora_dir) for name in names))
    axis = parse_axis(text)
    return axis if axis.adapter is None else dataclasses.replace(axis, adapter=checked_name(axis.adapter))


def _swept(draw: Draw, axes: Sequence[Axis], *, guidance: bool = True) -> float:
    """The steps of all pictures of a grid; with `guidance`, a step with guidance counts twice."""
    values = {axis.argument or str(index): axis.values for index, axis in enumerate(axes)}
    own = {
        "steps": draw.steps or (len(draw.timesteps) if draw.timesteps else SETTINGS["steps"].default),
        "strength": 1.0 if draw.image is None else draw.strength or SETTINGS["strength"].default,
        "guidance_scale": draw.guidance_scale,
    }
    steps, strengths, scales = ([float(str(one)) for one in values.pop(name, (own[name],))] for name in own)
    passes = sum(2 if guidance and scale > 1 else 1 for scale in scales)
    return sum(steps) * sum(strengths) * passes * math.prod(len(others) for others in values.values())


class _GridProgress:
    """Turns pictures and their steps into the progress of the whole job. steps: of all pictures, about."""

    def __init__(self, report: Report, steps: int) -> None:
        self._report, self._steps = report, max(steps, 1)
        self._done, self._drawn = 0.0, 0
        self._text = ""
        self._first: float | None = None

    def picture(self, phrase: str, done: int, total: int) -> None:
        """Report that another picture begins. Raises Cancelled if the job should end."""
        self._text = "the sheet" if done == total else f"picture {done + 1} of {total}: {phrase}"
        if not self._say(0, None):
            raise Cancelled("stopped between two pictures")

    def step(self, step: Step) -> bool:
        """The callback for `Pipeline.generate`."""
        self._drawn += 1
        self._first = self._first or time.perf_counter()
        stage = " · decoding" if step.index + 1 == step.steps else ""
        return self._say(step.index + 1, encode(step.preview(), "png", {}), stage)

    def done(self, steps: float) -> None:
        """Count a picture that is done, now or in an earlier attempt, with its steps."""
        self._done += steps

    def _say(self, steps: int, preview: bytes | None, stage: str = "") -> bool:
        now = min(round(self._done) + steps, self._steps)
        eta = None
        if self._first is not None and self._drawn > 1:
            eta = (time.perf_counter() - self._first) / (self._drawn - 1) * (self._steps - now)
        return self._report(JobProgress(step=now, steps=self._steps, eta=eta, preview=preview, text=self._text + stage))

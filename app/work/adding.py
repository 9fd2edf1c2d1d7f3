"""Adapters from elsewhere come into the library as jobs, because a download takes long; any tab shows and stops it."""

from __future__ import annotations

import threading
from typing import Any

from lorablend.adapters.errors import RequestError
from lorablend.app.files import check_name
from lorablend.app.jobs.jobs import Job, JobProgress, Jobs
from lorablend.app.jobs.worker import Report
from lorablend.app.library.add import read_hub_name
from lorablend.app.library.download import check_online, shown_address
from lorablend.app.library.library import Library
from lorablend.app.library.watch import Limits
from lorablend.app.orders.add import Add
from lorablend.app.orders.kinds import submit_order
from lorablend.app.work.models import Models

__all__ = ["Adding"]

# As large as an upload may be; as slow as nobody can bear, but for an hour only: whoever asks again goes on from there.
_LIMITS = Limits(size=8 << 30, seconds=3600, speed=10_000)


class Adding:
    """The runner of jobs of the kind "add", whose order is an `Add`.

    The order has only the part of an address that others may see. The whole address is kept in memory alone, for its
    own job: somebody else's may differ only in what is hidden.
    """

    def __init__(self, models: Models, jobs: Jobs) -> None:
        self._models, self._jobs = models, jobs
        self._submitting = threading.Lock()
        self._whole: dict[str, str] = {}  # by the job's id

    def submit(self, source: str, name: str = "", client: str = "") -> Job:
        """Queue a download.

        Args:
            source: An http or https address, or "hf:owner/repo[/file]"; never a path.
            name: What to call the adapter in the library, "" for the source's own name.
            client: Who submits it.

        Raises:
            RequestError: The source cannot be downloaded, or the library takes no adapters.
            QueueFullError: As many jobs are waiting as may wait.
        """
        self._library()
        if not source.startswith(("https://", "http://", "hf:")):
            raise RequestError(f'"{source[:80]}" is not an address; give a file, https://…, or hf:owner/repo')
        check_online()
        if source.startswith("hf:"):
            read_hub_name(source)
        public = source if source.startswith("hf:") else shown_address(source)
        order = Add(source=public, name=check_name(name) if name else "", whole=public == source)
        with self._submitting:  # the worker may take the job before its address is here
            job = submit_order(self._jobs, order, client)
            waiting = {one.id for one in self._jobs.active("add")}
            self._whole = {id_: kept for id_, kept in self._whole.items() if id_ in waiting}
            if not order.whole:
                self._whole[job.id] = source
        return job

    def __call__(self, job: Job, report: Report) -> dict[str, Any]:
        """The result: adapter, its name."""
        order = Add.model_validate(job.request)
        with self._submitting:
            source = order.source if order.whole else self._whole.get(job.id)
        if source is None:
            raise RequestError(
                f"{order.source}: the server was restarted, and keeps no token of an address; add it again"
            )

        def tell(done: int, total: int | None) -> bool:
            text = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
            return report(JobProgress(step=done if total else 0, steps=total or 1, text=text))

        return {"adapter": self._library().add(source, name=order.name or None, limits=_LIMITS, progress=tell).name}

    def _library(self) -> Library:
        if self._models.lora_dir is None:
            raise RequestError(
                "adapters cannot be added here; start the server with --lora-dir and a folder of your own"
            )
        return Library(self._models.lora_dir)

"""Adapters from elsewhere come into the library as jobs: a download takes long, and is seen and stopped by any tab."""

from __future__ import annotations

from typing import Any

from lorablend.adapters.errors import RequestError
from lorablend.app.files import check_name
from lorablend.app.jobs.jobs import Job, JobProgress, Jobs
from lorablend.app.jobs.worker import Report
from lorablend.app.library.add import read_hub_name
from lorablend.app.library.download import check_online, shown_address
from lorablend.app.library.library import Library
from lorablend.app.orders.add import Add
from lorablend.app.orders.kinds import submit_order
from lorablend.app.work.models import Models

__all__ = ["Adding"]


class Adding:
    """The runner of jobs of the kind "add", whose request is {source, name, whole}.

    source is what others may see of an address: without user, password and query, which may hold a token. The whole
    address, where that is another one, is kept in memory alone.
    """

    def __init__(self, models: Models, jobs: Jobs) -> None:
        self._models, self._jobs = models, jobs
        self._whole: dict[str, str] = {}

    def submit(self, source: str, name: str = "", client: str = "") -> Job:
        """Queue it. source: an http or https address, or "hf:owner/repo[/file]", never a path; name: "" for its own.

        Raises at once what can be known: RequestError, QueueFullError.
        """
        self._library()
        if not source.startswith(("https://", "http://", "hf:")):
            raise RequestError(f'"{source[:80]}" is no address; give a file, https://…, or hf:owner/repo')
        check_online()
        if source.startswith("hf:"):
            read_hub_name(source)
        seen = source if source.startswith("hf:") else shown_address(source)
        self._whole[seen] = source
        order = Add(source=seen, name=check_name(name) if name else "", whole=seen == source)
        return submit_order(self._jobs, order, client)

    def __call__(self, job: Job, report: Report) -> dict[str, Any]:
        """The result: adapter, its name."""
        order = Add.model_validate(job.request)
        source = self._whole.get(order.source, order.source)
        if source == order.source and not order.whole:
            raise RequestError(
                f"{order.source}: the server was restarted, and keeps no token of an address; add it again"
            )

        def tell(done: int, total: int | None) -> bool:
            text = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
            return report(JobProgress(step=done if total else 0, steps=total or 1, text=text))

        return {"adapter": self._library().add(source, name=order.name or None, progress=tell).name}

    def _library(self) -> Library:
        if self._models.lora_dir is None:
            raise RequestError(
                "adapters cannot be added here; start the server with --lora-dir and a folder of your own"
            )
        return Library(self._models.lora_dir)

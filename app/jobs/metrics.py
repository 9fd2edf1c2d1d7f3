"""Metrics of the queue and the workers for Prometheus, in a registry of their own for each server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from lorablend.app.jobs.jobs import STATES, Job, Jobs

__all__ = ["Metrics"]

_RECENT = 100  # jobs that a mean is of
_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 12 * 3600)  # seconds: pictures to trainings


class Metrics:
    """What happened to the jobs since this server started, and the state of its queue now.

    Args:
        jobs: The queue.
        alive: Whether all workers are alive.
    """

    def __init__(self, jobs: Jobs, alive: Callable[[], bool]) -> None:
        self._registry = CollectorRegistry()
        self._ended = Counter(
            "lorablend_jobs_ended", "Jobs that have ended since the start.", ["kind", "state"], registry=self._registry
        )
        self._duration, self._wait = (
            Histogram(name, text, ["kind"], buckets=_BUCKETS, registry=self._registry)
            for name, text in (
                ("lorablend_job_duration_seconds", "Time that done jobs took, since the start."),
                ("lorablend_job_queued_seconds", "Time that done jobs waited, since the start."),
            )
        )
        self._registry.register(_Queue(jobs, alive))
        jobs.on_end = self._count

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _count(self, job: Job) -> None:
        self._ended.labels(job.kind, job.state).inc()
        if job.state == "done" and job.started is not None and job.ended is not None:
            self._duration.labels(job.kind).observe(job.ended - job.started)
            self._wait.labels(job.kind).observe(max(0.0, job.started - job.submitted))


class _Queue(Collector):
    """What the database says when it is asked."""

    def __init__(self, jobs: Jobs, alive: Callable[[], bool]) -> None:
        self._jobs, self._alive = jobs, alive

    def collect(self) -> Iterator[GaugeMetricFamily]:
        states = GaugeMetricFamily("lorablend_jobs", "Jobs by state.", labels=["state"])
        for state in STATES:
            states.add_metric([state], self._jobs.count(state))
        yield states
        yield GaugeMetricFamily("lorablend_worker_up", "1 while the workers are alive.", value=float(self._alive()))
        # By kind: drawing takes seconds, training hours.
        done = {kind: self._jobs.find(kind=kind, state="done", limit=_RECENT) for kind in self._jobs.kinds()}
        for name, verb, start, end in (
            ("lorablend_job_seconds", "ran", "started", "ended"),
            ("lorablend_wait_seconds", "waited", "submitted", "started"),
        ):
            mean = GaugeMetricFamily(
                name, f"Mean time that the last {_RECENT} done jobs of a kind {verb}.", labels=["kind"]
            )
            for kind, jobs in done.items():
                if jobs:
                    mean.add_metric([kind], fmean(getattr(job, end) - getattr(job, start) for job in jobs))
            yield mean

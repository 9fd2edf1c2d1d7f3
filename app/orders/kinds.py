"""The kinds of jobs and the types of their orders, which the queue keeps as JSON."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from lorablend.adapters.errors import RequestError
from lorablend.app.jobs.jobs import Job, Jobs
from lorablend.app.orders.add import Add
from lorablend.app.orders.build import Bake, Compress, Convert
from lorablend.app.orders.compare import DrawOrder
from lorablend.app.orders.grid import DrawGrid
from lorablend.app.orders.train import Train

__all__ = ["ORDERS", "order_of", "refuse_unreadable", "submit_order"]

ORDERS: Mapping[str, type[BaseModel]] = {
    "draw": DrawOrder,
    "grid": DrawGrid,
    "train": Train,
    "convert": Convert,
    "compress": Compress,
    "bake": Bake,
    "add": Add,
}


def submit_order(jobs: Jobs, order: BaseModel, client: str) -> Job:
    """Queue an order as a job of its kind. Raises QueueFullError."""
    (kind,) = (kind for kind, own in ORDERS.items() if type(order) is own)
    return jobs.submit(kind, order.model_dump(exclude_defaults=True), client)


def order_of(job: Job) -> BaseModel:
    """The order of a job. Raises pydantic.ValidationError for one that another version of lorablend wrote."""
    return ORDERS[job.kind].model_validate(job.request)


def refuse_unreadable(jobs: Jobs) -> None:
    """Fail the waiting jobs whose orders cannot be read here, which a newer lorablend left."""
    jobs.refuse_others(ORDERS)
    for job in jobs.active(*ORDERS):
        try:
            order_of(job)
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            jobs.fail(job.id, f"the order cannot be read ({problem}); submit it again", RequestError.__name__)

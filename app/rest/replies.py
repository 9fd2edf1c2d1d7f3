"""What our own interface replies, for openapi.json and the clients that are generated from it.

Handlers write their replies as JSON themselves (see `shared.reply`): a name in it may hold characters that no schema
allows. The tests validate every reply against these models.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

__all__ = [
    "AdapterList",
    "AdapterReply",
    "AddedReply",
    "BinList",
    "Captioned",
    "Checked",
    "Done",
    "Health",
    "JobList",
    "JobReply",
    "ModelList",
    "PictureList",
    "PictureReading",
    "PictureReply",
    "PictureSettings",
    "RunDetails",
    "RunList",
    "SetDetails",
    "SetList",
    "SetReply",
    "SheetList",
    "State",
    "UploadReply",
]

State = Literal["queued", "running", "done", "failed", "cancelled"]


class Reply(BaseModel):
    """What all replies share."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


class Done(Reply):
    """Nothing: the request is done."""


# Jobs


class JobProgressReply(Reply):
    """The progress of a job."""

    step: int
    """Steps done so far."""
    steps: int
    """Steps of the whole job, 0 while they are not known."""
    eta: float | None
    """Seconds to the end."""
    text: str
    """The present stage, for a person."""
    preview: str | None = None
    """In events only: the picture so far, as a data URL."""


class DrawnPicture(Reply):
    """A picture that a job has drawn."""

    file: str
    """Its name in the gallery."""
    seed: int
    seconds: float
    """How long it took; 0 if an earlier attempt of the job drew it."""
    url: str
    """Where its file is."""


class GridPicture(DrawnPicture):
    """A picture of a grid."""

    phrases: list[str]
    """The values of the axes, in words."""


class GridResult(Reply):
    """What came of a grid."""

    pictures: list[GridPicture]
    warnings: list[str]
    sheet: str
    """The name of the sheet."""
    sheet_url: str
    """Where the sheet is."""


class DrawResult(Reply):
    """What came of a drawing."""

    pictures: list[DrawnPicture]
    warnings: list[str]


class TrainResultReply(Reply):
    """What came of a training."""

    adapter: str
    """Its name in the library."""
    steps: int
    loss: float
    """At the end, smoothed over about fifty steps."""


class AdapterResult(Reply):
    """What came of a download."""

    adapter: str
    """Its name in the library."""


class ModelResult(Reply):
    """What came of a conversion, a compression or a bake."""

    model: str
    """Its name."""


class JobReply(Reply):
    """A job. Times are seconds since 1970."""

    number: int
    """Counts all jobs of the server."""
    id: str
    kind: str
    """draw, grid, train, convert, compress, bake or add."""
    client: str
    """The user, or the address, that submitted it."""
    state: State
    request: dict[str, Any]
    """What was ordered, without fields that have their defaults."""
    submitted: float
    started: float | None
    ended: float | None
    reason: str
    """Why it failed, in one line."""
    result: GridResult | DrawResult | TrainResultReply | ModelResult | AdapterResult | None
    """What came of it, by its kind; null until it is done."""
    progress: JobProgressReply | None
    """Null unless it is running."""


class JobList(Reply):
    """Jobs, the newest first."""

    jobs: list[JobReply]


class PictureReading(Reply):
    """What a picture says about how it was made."""

    program: str
    """The program that wrote it."""
    settings: dict[str, Any]
    """Fields of an order for /api/jobs."""
    missing: list[str]
    """One line for each part that is lost, not here, or not done here."""


class UploadReply(Reply):
    """An uploaded picture, kept for a week."""

    name: str
    """What requests call it, as `image` or `mask`."""
    width: int
    height: int


# Gallery


class PictureReply(Reply):
    """A picture in the gallery."""

    file: str
    """Its name in the gallery, with slashes."""
    created: float
    """Seconds since 1970."""
    prompt: str
    negative_prompt: str
    seed: int | None
    """Null if the file does not say."""
    adapters: list[str]
    model: str
    width: int
    height: int
    parameters: str
    """The settings as text, as A1111 writes them; empty if the file has none."""
    favourite: bool
    url: str
    """Where the file itself is."""


class PictureSettings(PictureReply):
    """A picture in the gallery, with everything that it was made from."""

    record: dict[str, Any] | None
    """The whole record; null for a picture of another program."""


class PictureList(Reply):
    """Pictures, the newest first."""

    pictures: list[PictureReply]


class BinList(Reply):
    """What is in the bin."""

    files: list[str]


class Sheet(Reply):
    """The sheet of a grid."""

    file: str
    url: str


class SheetList(Reply):
    """Sheets, the newest first."""

    sheets: list[Sheet]


# Adapters and models


class AdapterReply(Reply):
    """An adapter in the library."""

    name: str
    """Its path in the library without the suffix; what a tag in a prompt calls it."""
    size: int
    """Bytes."""
    modified: float
    """Seconds since 1970."""
    title: str
    base_model: str
    algorithms: list[str]
    ranks: list[int]
    trigger_words: list[str]
    tensors: int
    hashed: bool
    """Whether the three hashes are known."""
    sha256: str | None
    autov2: str | None
    autov3: str | None
    error: str | None
    """Why it cannot be used."""
    preview: bool
    """Whether it has a picture."""
    tags: list[str]
    favourite: bool
    last_used: str | None
    """ISO 8601, in UTC."""


class AdapterList(Reply):
    """Adapters, by name."""

    adapters: list[AdapterReply]


class Model(Reply):
    """A base model."""

    name: str
    family: str
    """sdxl, sd15 or another; empty for a broken model."""
    size: int
    """Bytes on disk."""
    default: bool
    """Whether it draws where a request names no model."""
    own: bool
    """Whether it was made here, and can be removed."""
    origin: str
    """Where it is from, in words."""
    error: str | None
    """Why it cannot be used."""


class ModelList(Reply):
    """Base models, the default first."""

    models: list[Model]
    sources: list[str]
    """What is ready to be converted."""
    free: int
    """Bytes that are free on the disk of the models."""


# Training


class Checked(Reply):
    """What a training would do."""

    lines: list[str]
    """For people."""


class RunReply(Reply):
    """A training that waits or has begun."""

    name: str
    """Its adapter's name."""
    state: State | None
    """Of its newest job; null if no job is known."""
    steps: int
    """Steps that are done."""
    resumable: int | None
    """The step that it would go on after; null if there is nothing to go on from."""


class RunList(Reply):
    """Trainings, by name."""

    runs: list[RunReply]


class LossPoint(Reply):
    """One point of a training's curve."""

    step: int
    loss: float
    smoothed: float
    """Over about fifty steps."""


class SampleSheet(Reply):
    """Samples that a training has drawn."""

    step: int
    url: str


class RunDetails(RunReply):
    """A training with its curve and samples."""

    losses: list[LossPoint]
    samples: list[SampleSheet]


class SetReply(Reply):
    """A data set."""

    name: str
    pictures: int
    captions: int
    """Pictures that have a caption."""
    dropped: int
    """Pictures in the set's bin."""


class SetList(Reply):
    """Data sets, by name."""

    sets: list[SetReply]


class AddedReply(SetReply):
    """A data set after pictures were added to it."""

    added: list[str]
    """Names of the new pictures."""
    notes: list[str]
    """What should be known of them, for people."""


class Captioned(Reply):
    """A picture of a data set."""

    file: str
    caption: str
    """Each line is an alternative; empty for none."""


class SetPictureReply(Captioned):
    """A picture of a data set, and where it is."""

    url: str


class SetDetails(Reply):
    """A data set with its pictures."""

    name: str
    pictures: list[SetPictureReply]
    captions: int
    """Pictures that have a caption."""
    dropped: list[str]
    """Names of the pictures in the set's bin, the last drop first."""


# Health


class HealthState(Reply):
    """The state of the server, as anybody may know it."""

    status: Literal["ok", "degraded", "down"]
    """degraded: the disk is full. down: a worker has died."""


class Health(HealthState):
    """The state of the server."""

    worker: bool
    """Whether all workers are alive."""
    model: str
    """The default model."""
    models: list[str]
    queued: int
    running: int
    offline: bool
    version: str

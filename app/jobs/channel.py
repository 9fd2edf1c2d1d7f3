"""What a child process tells its server: JSON, one object per line, on a descriptor that carries nothing else.

{"kind": "stage", "stage": "unet", "done": 2, "stages": 5}
{"kind": "step", "step": 40, "steps": 1200, "loss": 0.0812, "eta": 310.5}
{"kind": "note", "text": "a warning, or a decision that a terminal would show"}
{"kind": "failure", "error": "ModelError", "message": "…", "attributes": {"command": ""}}
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, TextIO

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from lorablend.adapters import errors
from lorablend.adapters.errors import FaultError, LorablendError

__all__ = ["Failure", "Message", "Note", "Stage", "TrainStep", "open_channel", "read_message", "tell"]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stage(_Message):
    """A stage of a conversion begins; `done` of `stages` stages are done."""

    kind: Literal["stage"] = "stage"
    stage: str
    done: int
    stages: int


class TrainStep(_Message):
    """A step of a training is done. loss: smoothed over about the last fifty steps. eta: seconds to the end."""

    kind: Literal["step"] = "step"
    step: int
    steps: int
    loss: float
    eta: float


class Note(_Message):
    """A warning or a decision, for a person."""

    kind: Literal["note"] = "note"
    text: str


class Failure(_Message):
    """The error that ends the process: its class, its message and its other attributes."""

    kind: Literal["failure"] = "failure"
    error: str
    message: str
    attributes: dict[str, Any]

    @classmethod
    def of(cls, error: LorablendError | OSError) -> Failure:
        """The message that carries an error."""
        if isinstance(error, OSError):
            attributes = {"errno": error.errno, "filename": error.filename and str(error.filename)}
            return cls(error=OSError.__name__, message=error.strerror or str(error), attributes=attributes)
        kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in errors.__all__)
        # Those of the tree alone: Typer hangs an object of its own on every exception that passes through it.
        attributes = {name: value for name, value in vars(error).items() if isinstance(value, str | int | None)}
        return cls(error=kind, message=error.message, attributes=attributes)

    def exception(self) -> LorablendError | OSError:
        """The error again, as the same class."""
        if self.error == OSError.__name__:
            return OSError(self.attributes["errno"], self.message, self.attributes["filename"])
        kind = getattr(errors, self.error) if self.error in errors.__all__ else FaultError
        error = kind.__new__(kind, self.message)
        vars(error).update(self.attributes)
        return error


Message = Annotated[Stage | TrainStep | Note | Failure, Field(discriminator="kind")]
_MESSAGE: TypeAdapter[Stage | TrainStep | Note | Failure] = TypeAdapter(Message)
_channel: TextIO | None = None


def open_channel(descriptor: int) -> None:
    """Send what this process tells to a descriptor. Called once, by a server's child; elsewhere `tell` does nothing."""
    global _channel
    _channel = os.fdopen(descriptor, "w", encoding="utf-8", buffering=1)


def tell(message: Stage | TrainStep | Note | Failure) -> None:
    """Send a message to the server, if this process is a server's child."""
    if _channel is not None:
        _channel.write(f"{message.model_dump_json()}\n")


def read_message(line: str) -> Stage | TrainStep | Note | Failure:
    """The message in a line. Raises pydantic.ValidationError."""
    return _MESSAGE.validate_json(line)

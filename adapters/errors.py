"""Every error that lorablend raises on purpose, in one tree.

    LorablendError
    ├── InputError            a mistake of the caller: fix the input and call again
    │   ├── AdapterError      an adapter file that cannot be read, understood or attached
    │   │   └── BaseModelError    an adapter made for another base model
    │   ├── BlendError        a weight, a name or a combination of adapters that makes no sense
    │   ├── ModelError        a model folder, source or checkpoint that is incomplete or of the wrong kind
    │   ├── DeviceError       a device that does not exist on this machine
    │   ├── RequestError      a size, step count, strength, scheduler… out of range
    │   │   ├── NotFoundError     no picture, job, data set… of that name
    │   │   └── ForbiddenError    something that belongs to another user
    │   ├── DataError         a data set that cannot be trained on as it is
    │   └── TrainError        a training configuration, checkpoint or result that makes no sense
    │       └── ResumeError       a training that no longer fits the checkpoint it would go on from
    ├── MissingExtraError     an optional dependency is not installed; names the pip command
    ├── ResourceError         not enough disk or memory for the work
    ├── QueueFullError        as many jobs are waiting as may wait; try again later
    ├── FaultError            a bug of ours or a failing disk, whatever the caller sent; the log says more
    └── Cancelled             the caller's own callback asked to stop

Each message is one line: the thing's name, the values that disagree, what to do.
"""

__all__ = [
    "AdapterError",
    "BaseModelError",
    "BlendError",
    "Cancelled",
    "DataError",
    "DeviceError",
    "FaultError",
    "ForbiddenError",
    "InputError",
    "LorablendError",
    "MissingExtraError",
    "ModelError",
    "NotFoundError",
    "QueueFullError",
    "RequestError",
    "ResourceError",
    "ResumeError",
    "TrainError",
]


class LorablendError(Exception):
    """Root of the tree.

    Attributes:
        message: One line for a person.
        command: What to type in a terminal to go on, "" where no command helps. `str()` adds it to the message.
    """

    def __init__(self, message: str = "", *, command: str = "") -> None:
        super().__init__(message)
        self.message, self.command = message, command

    def __str__(self) -> str:
        return f"{self.message}; go on with: {self.command}" if self.command else self.message


class InputError(LorablendError):
    """A mistake of the caller."""


class AdapterError(InputError):
    """An adapter file that cannot be read, understood or applied."""


class BaseModelError(AdapterError):
    """An adapter made for another base model."""


class BlendError(InputError):
    """A weight, a name or a combination of adapters that makes no sense."""


class ModelError(InputError):
    """A model folder, source or checkpoint that is incomplete or of the wrong kind."""


class DeviceError(InputError):
    """A device that does not exist on this machine."""


class RequestError(InputError):
    """A size, step count, strength or scheduler out of range."""


class NotFoundError(RequestError):
    """No picture, job, data set or the like of that name."""


class ForbiddenError(RequestError):
    """Something that belongs to another user."""


class DataError(InputError):
    """A data set that cannot be trained on as it is."""


class TrainError(InputError):
    """A training configuration, checkpoint or result that makes no sense."""


class ResumeError(TrainError):
    """A training that no longer fits the checkpoint it would go on from.

    `message` says how they differ and what to change back; `str()` adds the other way out in a terminal.
    """

    def __str__(self) -> str:
        return f"{self.message}, or start again without --resume"


class MissingExtraError(LorablendError):
    """An optional dependency is not installed."""


class ResourceError(LorablendError):
    """Not enough disk or memory for the work."""


class QueueFullError(LorablendError):
    """As many jobs are waiting as may wait.

    Attributes:
        retry_after: Seconds after which one more is likely to fit.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class FaultError(LorablendError):
    """A bug of ours or a failing disk: nothing that the caller sent was wrong, and the log says more."""


class Cancelled(LorablendError):  # noqa: N818 - not a fault: the caller's callback asked for it
    """The caller's own callback asked to stop."""

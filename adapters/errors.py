"""Every error that lorablend raises on purpose, in one tree.

    LorablendError
    ├── InputError            the caller's mistake: fix the input and call again
    │   ├── AdapterError      an adapter file that cannot be read, understood or applied
    │   │   └── BaseModelError    an adapter made for another base model
    │   ├── BlendError        a weight, a name or a combination of adapters that makes no sense
    │   ├── ModelError        a model folder, source or checkpoint that is incomplete or of the wrong kind
    │   ├── DeviceError       a device that does not exist
    │   ├── RequestError      a size, step count, strength, scheduler… out of range
    │   ├── DataError         a data set that cannot be trained on as it is
    │   └── TrainError        a training configuration, checkpoint or result that makes no sense
    ├── MissingExtraError     an optional dependency is not installed; names the pip command
    ├── ResourceError         not enough disk or memory for the work
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
    "InputError",
    "LorablendError",
    "MissingExtraError",
    "ModelError",
    "RequestError",
    "ResourceError",
    "TrainError",
]


class LorablendError(Exception):
    """Root of the tree; the message is one line, written for the user."""


class InputError(LorablendError):
    """The caller's mistake."""


class AdapterError(InputError):
    """An adapter file that cannot be read, understood or applied."""


class BaseModelError(AdapterError):
    """An adapter made for another base model."""


class BlendError(InputError):
    """A weight, a name or a combination of adapters that makes no sense."""


class ModelError(InputError):
    """A model folder, source or checkpoint that is incomplete or of the wrong kind."""


class DeviceError(InputError):
    """A device that does not exist."""


class RequestError(InputError):
    """A size, step count, strength or scheduler out of range."""


class DataError(InputError):
    """A data set that cannot be trained on as it is."""


class TrainError(InputError):
    """A training configuration, checkpoint or result that makes no sense."""


class MissingExtraError(LorablendError):
    """An optional dependency is not installed."""


class ResourceError(LorablendError):
    """Not enough disk or memory for the work."""


class Cancelled(LorablendError):  # noqa: N818 - not a fault: the caller's callback asked for it
    """The caller's own callback asked to stop."""

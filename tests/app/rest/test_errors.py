"""The status of every kind of error."""

from __future__ import annotations

from lorablend.adapters import errors
from lorablend.app.rest.errors import ModelNotFoundError, status_of

STATUSES = {
    "AdapterError": 400,
    "BaseModelError": 400,
    "BlendError": 400,
    "Cancelled": 500,
    "DataError": 400,
    "DeviceError": 400,
    "FaultError": 500,
    "ForbiddenError": 403,
    "InputError": 400,
    "LorablendError": 500,
    "MissingExtraError": 501,
    "ModelError": 400,
    "NotFoundError": 404,
    "QueueFullError": 429,
    "RequestError": 400,
    "ResourceError": 507,
    "ResumeError": 400,
    "TrainError": 400,
}


def test_every_kind_has_a_status() -> None:
    assert {name: status_of(getattr(errors, name)) for name in errors.__all__} == STATUSES
    assert status_of(ModelNotFoundError) == 404


def test_what_a_message_says_in_a_terminal_only() -> None:
    stopped = errors.Cancelled("stopped after step 3 of 9", command="lorablend train --resume")
    assert str(stopped) == "stopped after step 3 of 9; go on with: lorablend train --resume"
    assert stopped.message == "stopped after step 3 of 9"
    other = errors.ResumeError("rank is 4, the checkpoint has 2; give that")
    assert str(other) == "rank is 4, the checkpoint has 2; give that, or start again without --resume"

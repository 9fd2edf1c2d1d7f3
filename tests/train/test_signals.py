"""Ctrl-C and SIGTERM in this process; `tests/app/cli/test_train.py` sends one to a separate process."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from lorablend.adapters.errors import Cancelled
from lorablend.train import Progress
from lorablend.train.checkpoint import find_checkpoints, read_facts
from tests.train.trainings import STEPS, config_of, stop_at


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(settings: dict[str, Any], train: Any, number: signal.Signals) -> None:
    """The step is finished, a checkpoint written, and the message says how to resume; samples are not awaited."""
    config, before = config_of(settings, sample_every=1), signal.getsignal(number)

    def kill(progress: Progress) -> None:
        assert signal.getsignal(number) is not before  # else it ends the tests
        os.kill(os.getpid(), number)

    with pytest.raises(Cancelled) as caught:
        train(config, progress=kill)
    command = f"lorablend train --config {config.folder / 'config.toml'} --resume"
    assert str(caught.value) == f"stopped after step 1 of {STEPS}; go on with: {command}"
    (path,) = find_checkpoints(config.folder)
    assert read_facts(path)[0] == 1
    assert not config.out.exists()
    assert not list(config.folder.glob("samples-*"))


def test_handlers_are_put_back(settings: dict[str, Any], train: Any) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Cancelled):
        train(config_of(settings), progress=stop_at(1))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

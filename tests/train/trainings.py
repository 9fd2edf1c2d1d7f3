"""Configurations of small trainings, from the `settings` fixture."""

from __future__ import annotations

from typing import Any

from lorablend.train import TrainConfig

STEPS = 4


def config_of(settings: dict[str, Any], **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate({**settings, **changes})


def stop_at(step: int) -> Any:
    return lambda progress: progress.step < step

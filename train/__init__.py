"""Train an adapter on a folder of pictures.

torch, diffusers, peft and accelerate come with the extra `lorablend[train]` and are imported when training starts;
importing this package is cheap.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorablend.train.config import TrainConfig
    from lorablend.train.loop import TrainResult, train
    from lorablend.train.run import Progress

__all__ = ["Progress", "TrainConfig", "TrainResult", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "TrainConfig":
        from lorablend.train.config import TrainConfig

        return TrainConfig
    from lorablend.train import loop

    return getattr(loop, name)

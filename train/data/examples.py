"""One picture of a data set, with all that training takes from it."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Example"]


@dataclass(frozen=True)
class Example:
    """One picture to train on.

    captions: alternatives, () where there is none; repeats: how often in each epoch; size: (width, height) in pixels
    after EXIF rotation; mask: a grey picture where white counts, or `path` itself for its alpha channel; trigger: what
    goes before a caption that lacks it, None for regularization pictures, which show the class and not the subject.
    """

    path: Path
    captions: tuple[str, ...]
    repeats: int
    size: tuple[int, int]
    mask: Path | None
    trigger: str | None = None
    regularization: bool = False

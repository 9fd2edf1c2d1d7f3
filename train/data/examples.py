"""One picture of a data set, with everything that training needs of it."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Example"]


@dataclass(frozen=True)
class Example:
    """One picture to train on.

    Attributes:
        captions: Alternatives; () if there is none.
        repeats: How often the picture is shown per epoch.
        size: (width, height) in pixels after EXIF rotation.
        mask: A grey picture that is white where the loss counts, or `path` itself for its alpha channel.
        trigger: The word put in front of captions that lack it; None for regularization pictures, which show the
            class and not the subject.
    """

    path: Path
    captions: tuple[str, ...]
    repeats: int
    size: tuple[int, int]
    mask: Path | None
    trigger: str | None = None
    regularization: bool = False

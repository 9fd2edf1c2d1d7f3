"""The log of a training: one JSON object per line, and the same in tensorboard if that is installed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from lorablend.adapters.errors import ResourceError
from lorablend.adapters.files.atomic import atomic_write
from lorablend.adapters.wording import shown

__all__ = ["RunLog", "read_log"]

_NAME = "log.jsonl"


class RunLog:
    """The log of one training, in `folder`/log.jsonl and `folder`/tensorboard; a context manager.

    Only the first of several processes has one.

    Args:
        step: The number of steps that are done. Lines about later steps, of a run that broke off, are removed, so that
            every step appears once.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.path = folder / _NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _cut(self.path, step)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._not_written(error) from error
        self._board: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Write a line about a step and flush it. Raises ResourceError if the disk is full."""
        line = json.dumps({"step": step} | {name: _plain(value) for name, value in values.items()}, ensure_ascii=False)
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            raise self._not_written(error) from error
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, str):
                    self._board.add_text(name, value, step)
                else:
                    self._board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, path: Path) -> None:
        """Log a picture file by its name; tensorboard gets the picture itself."""
        self.write(step, {name: path.name})
        if self._board is not None:
            import numpy as np
            from PIL import Image

            with Image.open(path) as image:
                self._board.add_image(name, np.array(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        with suppress(OSError):  # a full disk refuses the buffered rest once more
            self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _not_written(self, error: OSError) -> ResourceError:
        return ResourceError(f"{shown(self.path)} could not be written: {error.strerror or error}")


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """Read the lines of a training's log, without a last one that was cut off."""
    path = folder / _NAME
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                return


def _cut(path: Path, step: int) -> None:
    if not path.exists():
        return
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in read_log(path.parent) if line["step"] <= step]
    with atomic_write(path) as part:
        part.write_text("".join(lines), encoding="utf-8")


def _plain(value: float | int | str) -> float | int | str:
    """Replace NaN and infinity, which JSON lacks, by words."""
    return value if isinstance(value, str) or math.isfinite(value) else str(float(value))

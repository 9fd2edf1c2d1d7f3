"""What a training reports: one JSON object a line, always; the same to tensorboard where that is installed."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from lorablend.adapters.errors import ResourceError
from lorablend.adapters.wording import shown

__all__ = ["RunLog", "read_log"]

_NAME = "log.jsonl"


class RunLog:
    """The log of one training, in `folder`/log.jsonl and `folder`/tensorboard.

    step: how many steps are done already; what the log says of later ones, of a run that broke off, is taken out, so
    that every step is told once. A context manager; only the first of several processes has one.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.path = folder / _NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _cut(self.path, step)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._refused(error) from error
        self._board: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """A line about a step, on disk when this returns. Numbers go to tensorboard too. ResourceError."""
        line = json.dumps({"step": step} | {name: _plain(value) for name, value in values.items()}, ensure_ascii=False)
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            raise self._refused(error) from error
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, str):
                    self._board.add_text(name, value, step)
                else:
                    self._board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, path: Path) -> None:
        """A picture file about a step: its name to the log, itself to tensorboard."""
        self.write(step, {name: path.name})
        if self._board is not None:
            import numpy as np
            from PIL import Image

            with Image.open(path) as image:
                self._board.add_image(name, np.array(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        with suppress(OSError):  # what a full disk has refused it refuses again
            self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refused(self, error: OSError) -> ResourceError:
        return ResourceError(f"{shown(self.path)} could not be written: {error.strerror or error}")


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a training's log; a last one that was cut off is left out."""
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
    kept = [json.dumps(line, ensure_ascii=False) + "\n" for line in read_log(path.parent) if line["step"] <= step]
    work = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        work.write_text("".join(kept), encoding="utf-8")
        os.replace(work, path)
    finally:
        work.unlink(missing_ok=True)


def _plain(value: float | int | str) -> float | int | str:
    """JSON has no NaN and no infinity: they are written as words."""
    return value if isinstance(value, str) or math.isfinite(value) else str(float(value))

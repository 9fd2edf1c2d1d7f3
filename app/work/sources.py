"""What can be converted: sources on the server's machine, by name, and ids on the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lorablend.adapters.errors import RequestError
from lorablend.adapters.wording import shown
from lorablend.convert.checkpoint import inspect_checkpoint
from lorablend.convert.source import read_checkpoint, read_folder

__all__ = ["Sources"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_CHECKPOINT = ".safetensors"
_FILE_BYTES = {"fp16": 2, "int8": 1, "fp32": 4}  # per parameter, in the files


class Sources:
    """The diffusers folders and .safetensors checkpoints in some folders, which clients may name.

    Args:
        places: The folders. Nothing else in them can be named.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = tuple(places)

    def names(self) -> list[str]:
        """The names of all sources, sorted."""
        return sorted({path.name for path in self._convertible()}, key=str.casefold)

    def find(self, text: str) -> Path | str:
        """The path of the source of that name, or the text itself if it is an id on the Hub. Raises RequestError."""
        if _HUB_ID.fullmatch(text) and ".." not in text and not text.endswith(_CHECKPOINT):
            if Path(text).exists():  # `lorablend convert` would take the folder
                raise RequestError(
                    f"{text} is also a folder where the server was started; start the server in another folder"
                )
            return text
        return self.local(text)

    def local(self, name: str) -> Path:
        """The path of the source of that name, which is looked up in a list and never taken for a path.

        Raises RequestError.
        """
        for path in self._convertible():
            if path.name == name:
                return path
        choice = f"there are {', '.join(self.names())}" if self.names() else "put it into sources, in its data folder"
        raise RequestError(f"{shown(name)} is not a Hugging Face id (owner/name) or a source on the server; {choice}")

    def needed(self, text: str, weights: str, config: str | None) -> int:
        """About how many bytes the converted model takes on disk; 0 for ids on the Hub, whose size the job looks up.

        Args:
            text: As in `find`.
            weights: fp16, int8 or fp32.
            config: For a checkpoint: the name of a diffusers folder among the sources.

        Raises:
            RequestError: There is no such source.
            ModelError: The source is incomplete.
        """
        source = self.find(text)
        if config is not None and (isinstance(source, str) or source.suffix != _CHECKPOINT):
            raise RequestError(f"config is for a .safetensors checkpoint; {text} has its own")
        if isinstance(source, str):
            return 0
        if source.suffix != _CHECKPOINT:
            parameters = read_folder(source, text, revision=None, half=weights != "fp32").parameters
        elif config is not None:
            parameters = read_checkpoint(source, self.local(config)).parameters
        else:
            inspect_checkpoint(source)
            parameters = {"all": source.stat().st_size // 2}  # as fp16
        needed = sum(parameters.values()) * _FILE_BYTES[weights]
        # Until it is compressed, the largest network is on disk in fp16 too.
        return needed + (2 * max(parameters.values()) if weights == "int8" else 0)

    def _convertible(self) -> Iterator[Path]:
        for place in self.places:
            try:
                paths = sorted(place.iterdir())
                found = [path for path in paths if not path.name.startswith(".") and _is_convertible(path)]
            except OSError:  # it does not exist, or may not be read
                continue
            yield from found


def _is_convertible(path: Path) -> bool:
    """A checkpoint, or a diffusers folder that is not a converted model."""
    if path.suffix == _CHECKPOINT:
        return path.is_file()
    return (path / "model_index.json").is_file() and not (path / "unet" / "openvino_model.xml").exists()

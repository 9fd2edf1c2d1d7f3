"""What can be converted: names of what lies ready on the server's machine, and ids on the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lorablend.adapters.errors import RequestError
from lorablend.adapters.wording import shown
from lorablend.convert.source import checkpoint_family, read_checkpoint, read_folder

__all__ = ["Sources"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_CHECKPOINT = ".safetensors"
_FILE_BYTES = {"fp16": 2, "int8": 1, "fp32": 4}  # per parameter, in the files


class Sources:
    """places: folders whose diffusers folders and .safetensors checkpoints can be named, and nothing else of them."""

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = tuple(places)

    def names(self) -> list[str]:
        """What lies ready."""
        return sorted({path.name for path in self._convertible()}, key=str.casefold)

    def find(self, text: str) -> Path | str:
        """What lies ready by that name, or the id on the Hub that it is. Raises RequestError."""
        if _HUB_ID.fullmatch(text) and ".." not in text and not text.endswith(_CHECKPOINT):
            if Path(text).exists():  # `lorablend convert` would take the folder
                raise RequestError(f"{text} is a folder where the server was started, too; start it in another one")
            return text
        return self.local(text)

    def local(self, name: str) -> Path:
        """What lies ready by that name, found in the list, so that none is ever a path. Raises RequestError."""
        for path in self._convertible():
            if path.name == name:
                return path
        there = f"there are {', '.join(self.names())}" if self.names() else "put it into sources, in its data folder"
        raise RequestError(f"{shown(name)} is no Hugging Face id (owner/name) and does not lie on the server; {there}")

    def needed(self, text: str, weights: str, config: str | None) -> int:
        """Bytes on disk of what it is converted to, about; 0 for what is on the Hub, which its conversion looks up.

        weights: fp16, int8 or fp32. config: for a checkpoint, a diffusers folder that lies ready. Raises RequestError,
        and ModelError for what is not complete.
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
            checkpoint_family(source)
            parameters = {"all": source.stat().st_size // 2}  # as fp16
        needed = sum(parameters.values()) * _FILE_BYTES[weights]
        # The largest network is there in fp16 too until it is compressed.
        return needed + (2 * max(parameters.values()) if weights == "int8" else 0)

    def _convertible(self) -> Iterator[Path]:
        for place in self.places:
            try:
                paths = sorted(place.iterdir())
                found = [path for path in paths if not path.name.startswith(".") and _is_convertible(path)]
            except OSError:  # not there, or not for us to read
                continue
            yield from found


def _is_convertible(path: Path) -> bool:
    """A checkpoint, or a diffusers folder that is not a converted model."""
    if path.suffix == _CHECKPOINT:
        return path.is_file()
    return (path / "model_index.json").is_file() and not (path / "unet" / "openvino_model.xml").exists()

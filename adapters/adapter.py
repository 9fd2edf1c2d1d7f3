"""From a file to deltas: read it, understand and check every tensor, and return a frozen `Adapter`."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np

from lorablend.adapters.algorithms.delta import BiasDelta, Delta
from lorablend.adapters.algorithms.scale import ScaleSettings
from lorablend.adapters.base_model import tell_base_model
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files import metadata as _metadata
from lorablend.adapters.files.file import TensorFile, read_file
from lorablend.adapters.reading import ModuleName, Reading
from lorablend.adapters.wording import shown

__all__ = ["Adapter", "load_adapter"]


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter file that has been read, understood and checked.

    Every tensor of the file is counted exactly once, in `covered`, `ignored` or `refused`. The file stays mapped into
    memory while the adapter is in use.

    Attributes:
        file: The file that was read.
        base_model: The base model that the adapter was made for: "sd15", "sd2", "sdxl", or "unknown".
        deltas: The change of each module's weight, by (component, module path). Components are diffusers' folder
            names: "unet", "text_encoder" and "text_encoder_2".
        biases: The change of each module's bias, by the same keys.
        embeddings: The vectors of bundled textual inversions, by token name and then component; float32
            [vectors, width].
        covered: The number of tensors that were understood.
        ignored: The names of tensors that are known to change nothing.
        refused: The names of tensors that a lenient reading left out.
        warnings: Sentences for the user.
        settings: PEFT's settings, by component.
    """

    file: TensorFile
    base_model: str
    deltas: Mapping[ModuleName, Delta] = field(repr=False)
    biases: Mapping[ModuleName, BiasDelta] = field(repr=False, default_factory=lambda: MappingProxyType({}))
    embeddings: Mapping[str, Mapping[str, np.ndarray]] = field(repr=False, default_factory=lambda: MappingProxyType({}))
    covered: int = 0
    ignored: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, ScaleSettings] = field(repr=False, default_factory=lambda: MappingProxyType({}))

    @property
    def path(self) -> Path:
        """The path that the file was read from."""
        return self.file.path

    @property
    def name(self) -> str:
        """The file name without its suffix."""
        return self.path.stem

    @property
    def metadata(self) -> Mapping[str, str]:
        """The text entries of the file's header, unchecked."""
        return self.file.metadata

    @property
    def tensor_count(self) -> int:
        """The number of tensors in the file."""
        return len(self.file.tensors)

    @property
    def size(self) -> int:
        """The length of the file in bytes."""
        return self.file.size

    @property
    def trigger_words(self) -> list[str]:
        """Words to write into a prompt, according to the metadata."""
        return _metadata.trigger_words(self.metadata)

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the whole file, in hex."""
        return _metadata.hash_file(self.file)

    @cached_property
    def content(self) -> str:
        """A hash that is equal for equal changes, in hex: of the file and of PEFT's settings."""
        settings = {component: dict(settings.raw) for component, settings in self.settings.items()}
        return hashlib.sha256(f"{self.sha256} {json.dumps(settings, sort_keys=True)}".encode()).hexdigest()

    @property
    def autov2(self) -> str:
        """Civitai's AutoV2, a short hash of the file: 10 hex digits."""
        return self.sha256[:10]

    @cached_property
    def autov3(self) -> str:
        """Civitai's AutoV3, a hash of the tensors without the metadata: 12 hex digits."""
        return _metadata.hash_data(self.file)[:12]


def load_adapter(path: str | os.PathLike[str], *, lenient: bool = False, check_values: bool = True) -> Adapter:
    """Read an adapter file in the safetensors format.

    Args:
        path: The file.
        lenient: Leave out whatever is not understood, always whole modules, and list it in `Adapter.refused`. An error
            is raised only if nothing remains.
        check_values: Look at every number, so that NaN and infinity are found now rather than in a picture. False
            reads little more than the header, however large the file is: use it to list adapters, not to apply one.

    Returns:
        The adapter, with the change of every module that the file contains.

    Raises:
        AdapterError: The file is broken, is of another kind, or has a tensor that is not understood.
        BaseModelError: The adapter was made for a model with other modules (FLUX, SD 3, the SDXL refiner…). This is an
            AdapterError too.
    """
    file = read_file(path)
    try:
        reading = Reading(file, lenient=lenient, check_values=check_values)
        return Adapter(
            file,
            tell_base_model(reading),
            MappingProxyType(reading.deltas),
            MappingProxyType(reading.biases),
            MappingProxyType(reading.embeddings),
            len(reading.covered),
            tuple(reading.ignored),
            tuple(reading.refused),
            tuple(reading.warnings),
            MappingProxyType(reading.settings),
        )
    except AdapterError as error:
        raise type(error)(f"{shown(file.path.name)}: {error}") from error.__cause__

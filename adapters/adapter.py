"""From a file to deltas: read, understand every tensor, check, and hand out a frozen `Adapter`."""

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
    """One adapter file, understood and checked.

    `deltas` maps (component, module path) to the change of that module's weight, `biases` to that of its bias;
    components are diffusers' folder names, "unet", "text_encoder" and "text_encoder_2". `embeddings` maps the name of a
    bundled textual inversion to its vectors by component, float32 [vectors, width]. `base_model` is "sd15", "sd2",
    "sdxl" or "unknown". Every tensor of the file is counted once: `covered` ones are understood, `ignored` names those
    that are known to change nothing, `refused` those that a lenient reading left out. `warnings` are sentences for the
    user. `settings` are PEFT's, by component. The file stays mapped while the adapter is in use.
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
        """Where it was read from."""
        return self.file.path

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    @property
    def metadata(self) -> Mapping[str, str]:
        """The header's text entries, unchecked."""
        return self.file.metadata

    @property
    def tensor_count(self) -> int:
        """Tensors in the file."""
        return len(self.file.tensors)

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return self.file.size

    @property
    def trigger_words(self) -> list[str]:
        """What to write into a prompt, as far as the metadata says."""
        return _metadata.trigger_words(self.metadata)

    @cached_property
    def sha256(self) -> str:
        """Of the whole file, in hex."""
        return _metadata.hash_file(self.file)

    @cached_property
    def content(self) -> str:
        """Equal for equal changes, in hex: the file's hash, and that of the settings, which may lie beside it."""
        settings = {component: dict(settings.raw) for component, settings in self.settings.items()}
        return hashlib.sha256(f"{self.sha256} {json.dumps(settings, sort_keys=True)}".encode()).hexdigest()

    @property
    def autov2(self) -> str:
        """Civitai's short hash of the file: 10 hex digits."""
        return self.sha256[:10]

    @cached_property
    def autov3(self) -> str:
        """Civitai's hash of the tensors alone, whatever the metadata says: 12 hex digits."""
        return _metadata.hash_data(self.file)[:12]


def load_adapter(path: str | os.PathLike[str], *, lenient: bool = False, check_values: bool = True) -> Adapter:
    """Read an adapter file (safetensors).

    Raises AdapterError for a file that is broken, of another kind, or not understood to the last tensor, and
    BaseModelError for one made for a model with other modules (FLUX, SD 3, the SDXL refiner…).

    lenient: leave out what is not understood, a module always as a whole, and list it in `refused`; an error only if
    nothing is left.
    check_values: look at every number, so that NaN and infinity are found now and not in a picture. False reads the
    header and little else, whatever the file's size: for a list of adapters, not for using one.
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

"""From a file to deltas: read, understand every tensor, check, and hand out a frozen `Adapter`."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from . import metadata as _metadata
from ._wording import listed, shown
from .base_model import tell_base_model
from .delta import Delta
from .errors import AdapterError, BaseModelError
from .file import Tensor, TensorFile, read_file
from .keys import NOT_ADAPTERS, OTHER_BASES, Key, algorithm_of, parse_key
from .lora import build_lora
from .scale import ScaleSettings, read_scale_settings

__all__ = ["Adapter", "load_adapter"]

ModuleName = tuple[str, str]  # (component, module path)
Roles = dict[str, Tensor]

# One function per algorithm: (name for messages, module path, tensors by role, settings) -> delta, None for no change.
_BUILDERS: dict[str, Callable[[str, str, Mapping[str, Tensor], ScaleSettings], Delta | None]] = {"LoRA": build_lora}

_IGNORED = re.compile(r"(^|[._])_aux\.")  # bookkeeping of slider trainers, no part of the change


@dataclass(frozen=True, eq=False)
class Adapter:
    """One adapter file, understood and checked.

    `deltas` maps (component, module path) to the change of that module; components are diffusers' folder names, "unet",
    "text_encoder" and "text_encoder_2". `base_model` is "sd15", "sd2", "sdxl" or "unknown". `ignored` names the tensors
    that are known to change nothing, `warnings` are sentences for the user. The file stays mapped while the adapter is
    in use.
    """

    file: TensorFile
    base_model: str
    deltas: Mapping[ModuleName, Delta] = field(repr=False)
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

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

    @property
    def autov2(self) -> str:
        """Civitai's short hash of the file: 10 hex digits."""
        return self.sha256[:10]

    @cached_property
    def autov3(self) -> str:
        """Civitai's hash of the tensors alone, whatever the metadata says: 12 hex digits."""
        return _metadata.hash_data(self.file)[:12]


def load_adapter(path: str | os.PathLike[str]) -> Adapter:
    """Read an adapter file (safetensors).

    Raises AdapterError for a file that is broken, of another kind, or not understood to the last tensor, and
    BaseModelError for one made for a model with other modules (FLUX, SD 3, the SDXL refiner…).
    """
    file = read_file(path)
    try:
        return _understand(file)
    except AdapterError as error:
        raise type(error)(f"{shown(file.path.name)}: {error}") from error.__cause__


def _understand(file: TensorFile) -> Adapter:
    ignored = tuple(name for name in file.tensors if _IGNORED.search(name))
    keys = [parse_key(name) for name in file.tensors if not _IGNORED.search(name)]
    _refuse_other_files(keys)
    modules, warnings = _group(file, keys)
    _refuse_other_algorithms(file, keys, modules)
    _refuse_unknown(keys)
    _check_finite(file.tensors[key.name] for key in keys)

    settings = read_scale_settings(file)
    deltas: dict[ModuleName, Delta] = {}
    for (component, path), module_keys in modules.items():
        build = _BUILDERS[_algorithm(file, module_keys)]
        roles = {key.role: file.tensors[key.name] for key in module_keys}
        if delta := build(f"{component} {path}", path, roles, settings[component]):
            deltas[component, path] = delta
    if not deltas:
        raise AdapterError(
            "every module has rank 0, so there is nothing to apply" if modules else "no adapter tensors in it"
        )
    if zeros := sum(delta.alpha == 0 for delta in deltas.values()):
        warnings.append(f"alpha is 0 in {zeros} of {len(deltas)} modules, which therefore change nothing")
    base_model = tell_base_model(deltas, file.tensors.keys(), file.metadata)
    return Adapter(file, base_model, MappingProxyType(deltas), ignored, tuple(warnings))


def _refuse_other_files(keys: Sequence[Key]) -> None:
    """Files that are no adapters, and adapters for models of other modules; both have names that lead to no module."""
    strangers = [key.name for key in keys if key.path is None]
    for pattern, kind in NOT_ADAPTERS:
        if any(re.search(pattern, name) for name in strangers):
            raise AdapterError(f"{kind}, not a LoRA adapter")
    for pattern, base in OTHER_BASES:
        if found := next((name for name in strangers if re.search(pattern, name)), None):
            raise BaseModelError(f"made for {base} (tensor {shown(found)}); lorablend runs SD 1.5 and SDXL models")
    if keys and all(key.algorithm == "full weights" for key in keys):
        raise AdapterError("a full model, not an adapter: its tensors are plain weights")


def _group(file: TensorFile, keys: Sequence[Key]) -> tuple[dict[ModuleName, list[Key]], list[str]]:
    """The keys of every module, and warnings.

    One file may name the same module in several spellings: their roles are joined. A role that comes twice is kept once
    where the tensors are equal, and is an error where they differ.
    """
    modules: dict[ModuleName, dict[str, Key]] = defaultdict(dict)
    twice: list[str] = []
    unsaid = _unsaid_text_encoder(file, keys)
    for key in keys:
        if key.path is None:
            continue
        roles = modules[key.component or unsaid, key.path]
        if (first := roles.setdefault(key.role, key)) is not key:
            if not _same(file.tensors[first.name], file.tensors[key.name]):
                raise AdapterError(
                    f"tensors {shown(first.name)} and {shown(key.name)} are the same module's, but differ"
                )
            twice.append(key.name)
    warnings = [f"given twice, used once: {listed(twice)}"] if twice else []
    return {module: list(roles.values()) for module, roles in modules.items()}, warnings


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.raw_bytes == b.raw_bytes


def _unsaid_text_encoder(file: TensorFile, keys: Sequence[Key]) -> str:
    """Which text encoder is meant by names without a prefix: the folder says it, else the width of bigG (1280)."""
    if file.path.absolute().parent.name == "text_encoder_2":
        return "text_encoder_2"
    projections = [file.tensors[key.name].shape for key in keys if key.component is None and key.role == "down"]
    return "text_encoder_2" if any(shape[1:2] == (1280,) for shape in projections) else "text_encoder"


def _algorithm(file: TensorFile, keys: Sequence[Key]) -> str:
    """The algorithm of one module."""
    algorithm = algorithm_of(key.algorithm for key in keys)
    kernels = {file.tensors[key.name].shape[2:] for key in keys if key.role in ("down", "up")}
    if algorithm == "LoRA" and any(len(kernel) == 2 and kernel != (1, 1) for kernel in kernels):
        return "LoCon (k×k convolution)"
    return algorithm


def _refuse_other_algorithms(file: TensorFile, keys: Sequence[Key], modules: Mapping[ModuleName, list[Key]]) -> None:
    refused: dict[str, list[str]] = defaultdict(list)
    for module_keys in modules.values():
        if (algorithm := _algorithm(file, module_keys)) not in _BUILDERS:
            refused[algorithm] += [key.name for key in module_keys]
    for key in keys:
        if key.path is None and key.role and key.algorithm not in _BUILDERS:
            refused[key.algorithm].append(key.name)
    if refused:
        what = ", ".join(f"{algorithm} ({listed(names)})" for algorithm, names in refused.items())
        raise AdapterError(f"only LoRA on linear layers and 1×1 convolutions can be applied so far, this has {what}")


def _refuse_unknown(keys: Sequence[Key]) -> None:
    if unknown := [key.name for key in keys if not key.role]:
        raise AdapterError(f"of no known algorithm: {listed(unknown)}")
    if unknown := [key.name for key in keys if key.path is None]:
        raise AdapterError(f"for no module of SD 1.5, SD 2 or SDXL: {listed(unknown)}")


def _check_finite(tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        if not tensor.is_finite():
            raise AdapterError(f"tensor {shown(tensor.name)} contains NaN or infinity; the file is of no use")

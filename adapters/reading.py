"""Understand every tensor of a file: its module, its role, what its module changes, or why it is left out."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from lorablend.adapters.algorithms.builders import build_module
from lorablend.adapters.algorithms.delta import BiasDelta, Delta
from lorablend.adapters.algorithms.embedding import embedding_name, read_bundled
from lorablend.adapters.algorithms.oft_peft import PeftOftDelta
from lorablend.adapters.algorithms.scale import ScaleSettings
from lorablend.adapters.algorithms.scale_doubts import ScaleDoubts
from lorablend.adapters.algorithms.scale_sources import read_sources
from lorablend.adapters.errors import AdapterError, BaseModelError
from lorablend.adapters.files.file import Tensor, TensorFile
from lorablend.adapters.names.keys import BUNDLED, LONGEST_NAME, NOT_ADAPTERS, OTHER_BASES, PEFT_METHODS, Key, parse_key
from lorablend.adapters.names.modules import kernel_of
from lorablend.adapters.wording import listed, shown

__all__ = ["ModuleName", "Reading"]

ModuleName = tuple[str, str]  # (component, module path)
_T = TypeVar("_T")

# Tensors that only training needs: bookkeeping of slider trainers, and what PEFT's VeLoRA and MonteCLoRA add to a LoRA
# for its gradients and its sampling.
_IGNORED = re.compile(r"(^|[._])_aux\.|\.lora_(velora|monteclora)_")
_PEFT_METHOD = re.compile(rf"(?:^|\.)({'|'.join(PEFT_METHODS)})")
_BIG_G = 1280  # width of SDXL's second text encoder
_BLOCKS = ("OFT", "BOFT")  # their tensors do not have the weight's dimensions


class Reading:
    """The contents of a file. Each tensor's name is in exactly one of `covered`, `ignored` and `refused`.

    Raises AdapterError for the first tensor that is not understood. If `lenient`, the tensor's module is refused
    instead, and the error is raised only if nothing remains. A file of another kind is always an error.
    """

    def __init__(self, file: TensorFile, *, lenient: bool, check_values: bool) -> None:
        self.deltas: dict[ModuleName, Delta] = {}
        self.biases: dict[ModuleName, BiasDelta] = {}
        self.embeddings: dict[str, dict[str, np.ndarray]] = {}
        self.convolutions: set[ModuleName] = set()  # modules that have a tensor with four dimensions
        self.covered: list[str] = []
        self.ignored = [name for name in file.tensors if _IGNORED.search(name)]
        self.refused: dict[str, str] = {}  # tensor name -> reason
        self.warnings: list[str] = []
        self.settings: dict[str, ScaleSettings] = {}  # by component
        self.file = file
        self._duplicates: set[str] = set()  # of two names for the same tensor, the second
        self._lenient = lenient

        keys = [parse_key(name) for name in file.tensors if not _IGNORED.search(name)]
        _refuse_other_files(keys)
        modules = self._modules(keys)
        self._refuse_unknown(keys)
        if check_values:
            self._refuse_broken(keys)
        self._understand_modules(modules)
        self._understand_embeddings([key.name for key in keys if key.algorithm == BUNDLED])
        if not self.deltas and not self.biases and not self.embeddings:
            raise AdapterError(self._why_nothing())
        self._warn()

    def _attempt(self, names: Sequence[str], understand: Callable[[], _T]) -> _T | None:
        """Return what `understand` returns. If it raises and the reading is lenient, refuse the tensors; None."""
        if any(name in self.refused for name in names):
            self._refuse(names, "")
            return None
        try:
            return understand()
        except BaseModelError:
            raise
        except AdapterError as error:
            if not self._lenient:
                raise
            self._refuse(names, str(error))
            return None

    def _refuse(self, names: Iterable[str], reason: str) -> None:
        for name in names:
            self.refused.setdefault(name, reason)

    def _modules(self, keys: Sequence[Key]) -> dict[ModuleName, list[Key]]:
        """Group the keys by module.

        A file may spell the name of one module in several ways; their roles are joined. A role that appears twice is
        used once if the tensors are equal, and is an error if they differ.
        """
        modules: dict[ModuleName, dict[str, Key]] = defaultdict(dict)
        duplicates: dict[ModuleName, list[Key]] = defaultdict(list)
        default_component = self._default_text_encoder(keys)
        for key in keys:
            if key.path is None:
                continue
            module = key.component or default_component, key.path
            if (first := modules[module].setdefault(key.role, key)) is key:
                continue
            if _same(self.file.tensors[first.name], self.file.tensors[key.name]):
                duplicates[module].append(key)
                self._duplicates.add(key.name)
            else:
                self._attempt([first.name, key.name], lambda a=first, b=key: _raise_differing(a, b))
        return {module: [*roles.values(), *duplicates[module]] for module, roles in modules.items()}

    def _default_text_encoder(self, keys: Sequence[Key]) -> str:
        """Return the text encoder that names without a prefix mean, told by the folder or by the width of bigG."""
        if self.file.path.absolute().parent.name == "text_encoder_2":
            return "text_encoder_2"
        modules: dict[str, list[Key]] = defaultdict(list)
        for key in keys:
            if key.path and not key.component:
                modules[key.path].append(key)
        return "text_encoder_2" if any(map(self._is_big_g, modules.values())) else "text_encoder"

    def _is_big_g(self, keys: Sequence[Key]) -> bool:
        try:
            delta, bias = self._build("", str(keys[0].path), keys, ScaleSettings(), fullrank=False)
        except AdapterError:
            return False
        widths = {delta.in_features, delta.out_features} if delta else {bias.out_features} if bias else set()
        return _BIG_G in widths

    def _refuse_unknown(self, keys: Sequence[Key]) -> None:
        for reason, unknown in (
            ("unknown algorithm in", [key.name for key in keys if not key.role]),
            (
                "no module of SD 1.5, SD 2 or SDXL matches",
                [key.name for key in keys if key.role and key.path is None and key.algorithm != BUNDLED],
            ),
        ):
            if unknown:
                message = f"{reason} {listed(unknown)}"
                if not self._lenient:
                    raise AdapterError(message)
                self._refuse([*unknown, *_beside(unknown, keys)], message)

    def _refuse_broken(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if key.role != "alpha":  # an alpha that means nothing may be infinite; its readers check it
                self._attempt([key.name], lambda tensor=self.file.tensors[key.name]: _check_finite(tensor))

    def _understand_modules(self, modules: dict[ModuleName, list[Key]]) -> None:
        sources = read_sources(self.file)
        self.settings = settings = {component: said[0] for component, said in sources.items()}
        doubts = ScaleDoubts(self.file, sources)
        fullrank = not any(key.role == "up" for keys in modules.values() for key in keys)
        for (component, path), keys in modules.items():
            names = [key.name for key in keys]
            built = self._attempt(
                names, lambda c=component, p=path, k=keys: self._build(f"{c} ", p, k, settings[c], fullrank=fullrank)
            )
            if built is None:
                continue
            delta, bias = built
            if delta:
                self.deltas[component, path] = delta
                doubts.add(component, path, {key.role: self.file.tensors[key.name] for key in keys}, delta)
            if bias:
                self.biases[component, path] = bias
            if any(len(self.file.tensors[key.name].shape) == 4 and key.algorithm not in _BLOCKS for key in keys):
                self.convolutions.add((component, path))
            for name in names:
                (self.covered if (delta or bias) and name not in self._duplicates else self.ignored).append(name)
        self.warnings += doubts.warnings()

    def _build(
        self, prefix: str, path: str, keys: Sequence[Key], settings: ScaleSettings, *, fullrank: bool
    ) -> tuple[Delta | None, BiasDelta | None]:
        roles = {key.role: self.file.tensors[key.name] for key in keys}
        algorithms = [key.algorithm for key in keys]
        return build_module(f"{prefix}{path}", path, roles, algorithms, settings, fullrank=fullrank)

    def _understand_embeddings(self, names: Sequence[str]) -> None:
        tokens: dict[str, list[str]] = defaultdict(list)
        for name in names:
            token = self._attempt([name], lambda n=name: embedding_name(n))
            if token is not None:
                tokens[token].append(name)
        for parts in tokens.values():
            embedding = self._attempt(
                parts, lambda p=parts: read_bundled({name: self.file.tensors[name] for name in p})
            )
            if embedding is not None:
                self.embeddings |= embedding
                self.covered += parts

    def _why_nothing(self) -> str:
        if reasons := [reason for reason in self.refused.values() if reason]:
            return f"no tensor in it is understood: {reasons[0]}"
        if not all(_IGNORED.search(name) for name in self.ignored):
            return "every module has rank 0, so there is nothing to apply"
        return "the file has no adapter tensors"

    def _warn(self) -> None:
        if duplicates := [name for name in self.ignored if name in self._duplicates]:
            self.warnings.append(f"stored twice, used once: {listed(duplicates)}")
        turned = [
            f"{component} {path}"
            for (component, path), delta in self.deltas.items()
            if isinstance(delta, PeftOftDelta) and kernel_of(path)
        ]
        if turned:
            self.warnings.append(
                f"OFT of 3×3 convolutions ({listed(turned, 'layer')}): applied as PEFT merges it; PEFT without merging "
                "turns each patch of pixels by itself, which no weight can do, and draws another picture"
            )
        if self.refused:
            reason = next(reason for reason in self.refused.values() if reason)
            self.warnings.append(f"left out {listed(self.refused)}: {reason}")


def _refuse_other_files(keys: Sequence[Key]) -> None:
    """Raise AdapterError for files that are not adapters, and BaseModelError for adapters for other kinds of models.

    Both have tensor names that match no module.
    """
    unmatched = [key.name for key in keys if key.path is None]
    for pattern, kind in NOT_ADAPTERS:
        if any(re.search(pattern, name) for name in unmatched):
            raise AdapterError(f"{kind}, not a LoRA adapter")
    for name in unmatched:
        if method := _PEFT_METHOD.search(name[:LONGEST_NAME]):
            raise AdapterError(
                f"made with PEFT's {PEFT_METHODS[method[1]]} (tensor {shown(name)}), which is not supported; "
                "train a LoRA"
            )
    for pattern, base in OTHER_BASES:
        if evidence := next((name for name in unmatched if re.search(pattern, name)), None):
            raise BaseModelError(f"made for {base} (tensor {shown(evidence)}); lorablend runs SD 1.5 and SDXL models")
    if keys and all(key.algorithm in ("full weights", "full bias") for key in keys):
        raise AdapterError("a full model, not an adapter: its tensors are plain weights")


def _beside(unknown: Iterable[str], keys: Iterable[Key]) -> list[str]:
    """Return the other tensors of the same modules, which cannot be understood without the unknown ones."""
    modules: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        modules[key.module].append(key.name)
    starts = (name[: dot.start()] for name in unknown for dot in re.finditer(r"\.", name[:LONGEST_NAME]))
    return [name for module in set(filter(modules.__contains__, starts)) for name in modules[module]]


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.raw_bytes == b.raw_bytes


def _raise_differing(first: Key, second: Key) -> None:
    raise AdapterError(f"tensors {shown(first.name)} and {shown(second.name)} belong to the same module, but differ")


def _check_finite(tensor: Tensor) -> None:
    if not tensor.is_finite():
        raise AdapterError(f"tensor {shown(tensor.name)} contains NaN or infinity; the file is unusable")

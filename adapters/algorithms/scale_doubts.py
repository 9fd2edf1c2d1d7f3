"""Warnings about how strong a change is: places that disagree, and alphas that nobody has applied."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from lorablend.adapters.algorithms.delta import Delta
from lorablend.adapters.algorithms.scale import ScaleSettings
from lorablend.adapters.algorithms.scale_sources import CONFIG, Sources
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor, TensorFile
from lorablend.adapters.wording import listed, shown

__all__ = ["ScaleDoubts"]

_FACTORED = ("lora", "loha", "lokr", "glora", "dora")
_NO_ALPHA = 1e9  # ai-toolkit writes ten times this as the alpha of a LoKr that is not factored
_TOLERANCE = 0.01  # an alpha may be stored in bfloat16
_MODEL = "adapter_model.safetensors"


class ScaleDoubts:
    """Collects what is said about the modules of one file, one after the other."""

    def __init__(self, file: TensorFile, sources: Sources) -> None:
        self._file = file
        self._sources = sources
        self._disputes: dict[tuple[str, str], list[tuple[str, float, float]]] = defaultdict(list)
        self._algorithms: Counter[str] = Counter()
        self._zeros = self._modules = 0
        self._has_alpha = False
        self._whole: set[float] = set()  # alphas of LoKr modules of two whole matrices, applied with scale 1
        self._glora_ranks: set[int] = set()
        self._stored: list[tuple[float, float]] = []  # alpha and scale of each module with an alpha tensor

    def add(self, component: str, path: str, roles: Mapping[str, Tensor], delta: Delta) -> None:
        """Take one module's tensors and the delta that was built from them into account."""
        self._modules += 1
        self._zeros += delta.alpha == 0 and delta.scale == 0
        if delta.algorithm not in _FACTORED:
            return
        self._algorithms[delta.algorithm] += 1
        self._has_alpha |= delta.alpha is not None or "scale" in roles
        if delta.algorithm == "glora" and delta.rank:
            self._glora_ranks.add(delta.rank)
        if delta.rank is None:
            if "alpha" in roles and delta.scale == 1 and delta.alpha is not None and abs(delta.alpha) < _NO_ALPHA:
                self._whole.add(delta.alpha)
            return
        if "scale" in roles or "scalar" in roles:
            return
        if "alpha" in roles and delta.alpha is not None:
            self._stored.append((delta.alpha, delta.scale))
        sources = self._sources[component]
        used = "the alpha tensors" if "alpha" in roles else sources[0].source or "nothing"
        for source in sources:
            said = _said(source, path, delta.rank)
            if said is not None and not math.isclose(said, delta.scale, rel_tol=_TOLERANCE):
                self._disputes[used, source.source].append((path, delta.scale, said))

    def warnings(self) -> list[str]:
        """Return a sentence for each doubt."""
        found: list[str] = []
        if self._zeros:
            found.append(f"alpha is 0 in {self._zeros} of {self._modules} modules, which therefore change nothing")
        for (used, source), modules in self._disputes.items():
            (_, scale, said), count = modules[0], len(modules)
            by = "the tensors' own rank" if used == source else used
            direction = "strong" if abs(scale) > abs(said) else "weak"
            weight = f"; if it is too {direction}, use the weight {said / scale:.3g}" if scale else ""
            found.append(
                f"how strong it is, is said twice: {by} gives scale {scale:g}, {source} {said:g}, in {count} of "
                f"{self._modules} modules ({listed([path for path, _, _ in modules], 'module')}); applied with "
                f"{scale:g}{weight}"
            )
        trainer = self._sources["unet"][0].trainer
        doubts = trainer.doubts(self._whole, self._glora_ranks)
        return [*found, *self._unused(), *(doubts or self._whole_lokr(trainer.ranks))]

    def _unused(self) -> list[str]:
        """Return what is said of an alpha that nobody reads, or that no module has."""
        metadata = self._file.metadata
        alpha, dim = (_to_number(metadata.get(f"ss_network_{name}", "")) for name in ("alpha", "dim"))
        trainer = self._sources["unet"][0].trainer
        if self._stored and alpha and dim and not (trainer.rs_lora or trainer.block or trainer.unsure):
            return self._other_alpha(alpha, dim)
        if self._has_alpha or not self._algorithms:
            return []
        if alpha and dim and not math.isclose(alpha, dim):
            direction = "strong" if alpha < dim else "weak"
            return [
                f"the header has ss_network_alpha {alpha:g} and ss_network_dim {dim:g}, but no module has an alpha: "
                f"applied with scale 1; if it is too {direction}, use the weight {alpha / dim:.3g}"
            ]
        path = self._file.path
        lonely = path.name != _MODEL and path.with_name(CONFIG).is_file() and not path.with_name(_MODEL).exists()
        if lonely and any(name.startswith("base_model.model.") for name in self._file.tensors):
            return [
                f"{CONFIG} next to it was not read, because PEFT's file is called {_MODEL}; if the two belong "
                "together, rename this one, or its strength is wrong"
            ]
        return []

    def _other_alpha(self, alpha: float, dim: float) -> list[str]:
        """Return a doubt if the header's alpha is none of the modules', nor its scale: some have one of their own."""
        if any(
            math.isclose(stored, alpha, rel_tol=_TOLERANCE) or math.isclose(scale, alpha / dim, rel_tol=_TOLERANCE)
            for stored, scale in self._stored
        ):
            return []
        (_, scale), said = self._stored[0], alpha / dim
        direction = "strong" if scale > said else "weak"
        weight = f"; if it is too {direction}, use the weight {said / scale:.3g}" if scale else ""
        return [
            f"how strong it is, is said twice: the alpha tensors give scale {scale:g}, ss_network_alpha and "
            f"ss_network_dim {said:g}; applied with {scale:g}{weight}"
        ]

    def _whole_lokr(self, ranks: Collection[float]) -> list[str]:
        dim = self._file.metadata.get("ss_network_dim", "")
        alphas = [f"{alpha:g}" for alpha in sorted(self._whole.difference(ranks))]  # LyCORIS stores the rank
        if not dim or not alphas or alphas == [dim]:
            return []
        return [
            f"LoKr of whole matrices with alpha {', '.join(alphas)} and ss_network_dim {shown(dim)}: applied "
            "with scale 1, as LyCORIS does; if it is too strong, its author meant alpha / dim"
        ]


def _said(source: ScaleSettings, path: str, rank: int) -> float | None:
    """Return the scale that a place asks for; None if it gives no alpha."""
    alpha = source.alpha_of(path)
    if alpha is None:
        return None
    try:
        given = source.rank_of(path)
    except AdapterError:  # the rank is not needed, so it need not make sense
        given = None
    divisor = given if given and given > 0 else rank
    return alpha / (math.sqrt(divisor) if source.rank_stabilised else divisor)


def _to_number(text: str) -> float:
    """Return a number above 0, or 0 for any other text: "None", "Dynamic"."""
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0

"""Which function makes a delta of a module's tensors: one per algorithm."""

from collections.abc import Callable, Iterable, Mapping

from ._wording import listed
from .bias import BIAS_ROLES, build_bias
from .delta import BiasDelta, Delta
from .dora import build_dora
from .embedding import build_embedding
from .errors import AdapterError
from .factored import NUMBERS
from .file import Tensor
from .full import build_full
from .glora import build_glora
from .ia3 import build_ia3
from .keys import algorithm_of
from .loha import build_loha
from .lokr import build_lokr
from .lora import build_lora
from .oft import build_boft, build_oft
from .scale import ScaleSettings
from .sparse import RESIDUAL_ROLES, add_residual

__all__ = ["build_module"]

Roles = Mapping[str, Tensor]

# By algorithm of keys.ROLES: (name for messages, module path, tensors by role, settings) -> delta, None for no change.
_BUILDERS: dict[str, Callable[[str, str, Roles, ScaleSettings], Delta | None]] = {
    "DoRA": build_dora,
    "LoHa": build_loha,
    "LoKr": build_lokr,
    "GLoRA": build_glora,
    "IA3": build_ia3,
    "BOFT": build_boft,
    "OFT": build_oft,
    "embedding LoRA": build_embedding,
    "LoRA": build_lora,
    "full difference": build_full,
    "full weights": build_full,
    "number": build_lora,  # which says what a lone alpha lacks
}


def build_module(
    module: str, path: str, roles: Roles, algorithms: Iterable[str], settings: ScaleSettings, *, fullrank: bool
) -> tuple[Delta | None, BiasDelta | None]:
    """The change of one module's weight and that of its bias, None for what does not change.

    module: its name for messages. roles: all its tensors by role. algorithms: those that the tensors' names belong to.
    fullrank: the file has no `up` at all, so a lone `down` is a whole difference (ai-toolkit). Raises AdapterError.
    """
    bias = build_bias(module, path, roles, settings)
    rest = {role: tensor for role, tensor in roles.items() if role not in BIAS_ROLES | RESIDUAL_ROLES}
    residual = {role: tensor for role, tensor in roles.items() if role in RESIDUAL_ROLES}
    if BIAS_ROLES & roles.keys() and not residual and rest.keys() <= set(NUMBERS):
        return None, bias
    algorithm = algorithm_of(name for name in algorithms if name != "sparse residual" or not rest)
    if fullrank and "down" in rest and algorithm == "LoRA" and rest["down"].name.endswith(".lora_down.weight"):
        algorithm = "full difference"
    if algorithm not in _BUILDERS:
        raise AdapterError(f"{module}: {algorithm} is not supported: {listed([t.name for t in roles.values()])}")
    delta = _BUILDERS[algorithm](module, path, rest, settings)
    return add_residual(module, delta, residual) if residual else delta, bias

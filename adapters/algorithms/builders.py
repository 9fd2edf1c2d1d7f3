"""Choose the function that builds a delta from a module's tensors: there is one per algorithm."""

from collections.abc import Callable, Iterable, Mapping

from lorablend.adapters.algorithms.bias import BIAS_ROLES, build_bias
from lorablend.adapters.algorithms.delta import BiasDelta, Delta
from lorablend.adapters.algorithms.dora import build_dora
from lorablend.adapters.algorithms.embedding import build_embedding
from lorablend.adapters.algorithms.factored import NUMBERS
from lorablend.adapters.algorithms.full import build_full
from lorablend.adapters.algorithms.glora import build_glora
from lorablend.adapters.algorithms.ia3 import build_ia3
from lorablend.adapters.algorithms.loha import build_loha
from lorablend.adapters.algorithms.lokr import build_lokr
from lorablend.adapters.algorithms.lora import build_lora
from lorablend.adapters.algorithms.oft import build_boft, build_oft
from lorablend.adapters.algorithms.scale import ScaleSettings
from lorablend.adapters.algorithms.sparse import RESIDUAL_ROLES, add_residual
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor
from lorablend.adapters.names.keys import algorithm_of
from lorablend.adapters.wording import listed

__all__ = ["build_module"]

Roles = Mapping[str, Tensor]

# By algorithm in keys.ROLES: (name for messages, module path, tensors by role, settings) -> delta, None for no change.
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
    "number": build_lora,  # raises the error about an alpha without factors
}


def build_module(
    module: str, path: str, roles: Roles, algorithms: Iterable[str], settings: ScaleSettings, *, fullrank: bool
) -> tuple[Delta | None, BiasDelta | None]:
    """Build the change of one module's weight and that of its bias; None for either if it does not change.

    Args:
        module: The name for messages.
        path: The module path.
        roles: All tensors of the module, by role.
        algorithms: The algorithms that the tensors' names belong to.
        settings: PEFT's settings for the component.
        fullrank: The file has no `up` at all, so that a `down` alone is a full difference (ai-toolkit).

    Raises:
        AdapterError: The tensors do not fit together, or the algorithm is not supported.
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

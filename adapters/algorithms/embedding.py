"""Token embeddings: PEFT's LoRA of an embedding layer, and textual inversions bundled with an adapter."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lorablend.adapters.algorithms.bases import BakedDelta, ScaledDelta
from lorablend.adapters.algorithms.checks import (
    check_floats,
    check_roles,
    dtype_of,
    require_finite,
    require_fit,
)
from lorablend.adapters.algorithms.factored import NUMBERS
from lorablend.adapters.algorithms.scale import Scale, ScaleSettings, scale_of
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor
from lorablend.adapters.names.keys import BUNDLE_PREFIX
from lorablend.adapters.wording import shown

__all__ = ["EmbeddingDelta", "build_embedding", "embedding_name", "read_bundled"]

# The end of a bundled tensor's name -> component.
_BUNDLED = {
    "string_to_param.*": "text_encoder",  # A1111: SD 1.5, SD 2
    "emb_params": "text_encoder",
    "clip_l": "text_encoder",  # SDXL
    "clip_g": "text_encoder_2",
}
_OUTPUTS = ("clip_l_out", "clip_g_out")


@dataclass(frozen=True, eq=False)
class EmbeddingDelta(ScaledDelta, BakedDelta):
    """The `Delta` of an embedding layer's weight [vocabulary, width]: ΔE = scale · downᵀ · upᵀ (in PEFT, A and B).

    It is baked, because a table whose rows are looked up has no socket.
    """

    module: str
    down: Tensor  # [rank, vocabulary]
    up: Tensor  # [width, rank]
    scaling: Scale
    algorithm: str = "lora"

    @property
    def dtype(self) -> str:
        return dtype_of([self.down, self.up])

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def in_features(self) -> int:
        return self.up.shape[0]

    @property
    def out_features(self) -> int:
        return self.down.shape[1]

    @property
    def made_for(self) -> str:
        return f"{self.out_features}×{self.in_features}"

    def fits(self, shape: tuple[int, ...]) -> bool:
        return shape == (self.out_features, self.in_features)

    def dense(self, weight: np.ndarray) -> np.ndarray:
        require_fit(self.module, self.fits(weight.shape), self.made_for, weight.shape)
        down, up = self.factors()
        with np.errstate(over="ignore", invalid="ignore"):
            change = up @ down
        require_finite(self.module, change)
        return change

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return factors with ΔE = up · down, as for any other weight; PEFT's two tensors change places."""
        with np.errstate(over="ignore"):
            return self.up.float32().T, self.down.float32().T * np.float32(self.scale)


def build_embedding(
    module: str, path: str, roles: Mapping[str, Tensor], settings: ScaleSettings
) -> EmbeddingDelta | None:
    """Build the delta of an embedding layer from "embedding_down" and "embedding_up"; None if the rank is 0.

    Raises AdapterError.
    """
    check_roles(module, roles, ["embedding_down", "embedding_up"], NUMBERS)
    down, up = roles["embedding_down"], roles["embedding_up"]
    check_floats(down, up)
    for tensor in (down, up):
        if len(tensor.shape) != 2:
            raise AdapterError(f"tensor {shown(tensor.name)} has shape {list(tensor.shape)}; expected a matrix")
    if down.shape[0] != up.shape[1]:
        raise AdapterError(f"{module}: down has rank {down.shape[0]}, up has rank {up.shape[1]}")
    if not down.count or not up.count:
        return None
    return EmbeddingDelta(module, down, up, scale_of(module, path, roles, down.shape[0], settings))


def embedding_name(tensor_name: str) -> str:
    """Return the token's name in "bundle_emb.<name>.clip_l". Raises AdapterError if there is none."""
    return _split(tensor_name)[0]


def read_bundled(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, np.ndarray]]:
    """Read bundled textual inversions (LyCORIS, OneTrainer): token name -> component -> vectors, float32 [n, width].

    `tensors` are those whose names begin with "bundle_emb.". Raises AdapterError for tensors that are not embeddings of
    SD 1.5, SD 2 or SDXL, and for OneTrainer's output embeddings, which would have to be added after the text encoder.
    """
    embeddings: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for tensor in tensors.values():
        name, rest = _split(tensor.name)
        if rest in _OUTPUTS:
            raise AdapterError(f"tensor {shown(tensor.name)} is an output embedding, which is not supported")
        if rest not in _BUNDLED:
            raise AdapterError(f"tensor {shown(tensor.name)} is not part of a known embedding")
        component = _BUNDLED[rest]
        check_floats(tensor)
        if len(tensor.shape) not in (1, 2) or not tensor.count:
            raise AdapterError(f"tensor {shown(tensor.name)} has shape {list(tensor.shape)}; expected [n, width]")
        if component in embeddings[name]:
            raise AdapterError(f"the embedding {shown(name)} has two tensors for {component}")
        embeddings[name][component] = tensor.float32().reshape(-1, tensor.shape[-1])
    for name, parts in embeddings.items():
        counts = [len(vectors) for vectors in parts.values()]
        if len(set(counts)) > 1:
            raise AdapterError(
                f"the embedding {shown(name)} has {' and '.join(map(str, counts))} vectors for the text encoders; "
                "expected the same number"
            )
    return dict(embeddings)


def _split(tensor_name: str) -> tuple[str, str]:
    name, dot, rest = tensor_name.removeprefix(BUNDLE_PREFIX).partition(".")
    if not tensor_name.startswith(BUNDLE_PREFIX) or not name or not dot:
        raise AdapterError(f"tensor {shown(tensor_name)} does not name an embedding")
    return name, rest

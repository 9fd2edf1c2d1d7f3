"""Compare several adapters: how large their changes are, where, and whether they go in the same direction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lorablend.adapters.adapter import Adapter
from lorablend.adapters.blends.blend import MAX_ITEMS
from lorablend.adapters.errors import AdapterError, BlendError
from lorablend.adapters.names.naming import block_of
from lorablend.adapters.tools.changes import Module, WeightReader, dense_change, factors_of
from lorablend.adapters.tools.lora_file import common_base
from lorablend.adapters.wording import shown

__all__ = ["Block", "Comparison", "compare"]


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a network; all changes of an adapter in it are taken as one long vector.

    Attributes:
        component: "unet", "text_encoder" or "text_encoder_2"; "" for the total.
        name: The block, such as "down_blocks.1.attentions.0".
        modules: The number of modules that any of the adapters changes.
        norms: ‖ΔW‖ of each adapter, or ‖ΔW‖ / ‖W‖ if the model was given, where W are the weights of these modules.
        cosines: ⟨ΔWᵢ, ΔWⱼ⟩ / (‖ΔWᵢ‖ ‖ΔWⱼ‖), [adapters, adapters]; NaN if one of the two changes nothing.
    """

    component: str
    name: str
    modules: int
    norms: np.ndarray
    cosines: np.ndarray


@dataclass(frozen=True, eq=False)
class Comparison:
    """The result of `compare`.

    Attributes:
        names: The names of the adapters.
        relative: Whether the norms are relative to the model's weights.
        blocks: The blocks that are changed, in the order of the network.
        total: All blocks together.
        weights: What to multiply each adapter by so that all are as large as the smallest; None for one that changes
            nothing.
        left_out: Sentences about modules, biases and words that could not be compared.
    """

    names: tuple[str, ...]
    relative: bool
    blocks: tuple[Block, ...]
    total: Block
    weights: tuple[float | None, ...]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data; None for a cosine that is not defined."""
        return {
            "adapters": list(self.names),
            "relative": self.relative,
            "suggested_weights": list(self.weights),
            "total": _plain(self.total),
            "blocks": [_plain(block) for block in self.blocks],
            "left_out": list(self.left_out),
        }


def compare(adapters: Sequence[Adapter], weights: WeightReader | None = None) -> Comparison:
    """Compare the changes of 1 to 16 adapters at weight 1.

    Everything is computed from the factors. Changes without factors are made dense, one module at a time.

    Args:
        adapters: The adapters.
        weights: Reads the model's weights. With it, the norms are relative to them. Changes without factors need it.

    Raises:
        BlendError: There are no adapters, or too many.
        BaseModelError: The adapters are for different base models.
        AdapterError: A change has no factors and `weights` is None, or the shapes of two changes differ.
    """
    if not 1 <= len(adapters) <= MAX_ITEMS:
        raise BlendError(f"{len(adapters)} adapters to compare; give 1 to {MAX_ITEMS}")
    common_base(adapters)
    modules: dict[tuple[str, str], list[Module]] = {}
    for module in sorted({module for adapter in adapters for module in adapter.deltas}, key=_order):
        modules.setdefault((module[0], block_of(*module)), []).append(module)

    left_out = _uncompared(adapters)
    products: dict[tuple[str, str], np.ndarray] = {}  # ⟨ΔWᵢ, ΔWⱼ⟩
    squares: dict[tuple[str, str], float] = {}  # ‖W‖²
    for block, members in modules.items():
        products[block], squares[block] = np.zeros((len(adapters), len(adapters))), 0.0
        for module in members:
            weight = weights(*module) if weights else None
            if weights and weight is None:
                left_out.append(f"{' '.join(module)}: the model has no such layer")
                continue
            products[block] += _products(adapters, module, weight)
            squares[block] += float(np.square(weight, dtype=np.float64).sum()) if weight is not None else 0.0

    blocks = tuple(
        _block(*block, len(members), products[block], squares[block] if weights else 1.0)
        for block, members in modules.items()
    )
    count, whole = sum(map(len, modules.values())), np.sum(list(products.values()), axis=0)
    total = _block("", "total", count, whole, sum(squares.values()) if weights else 1.0)
    names = tuple(adapter.name for adapter in adapters)
    return Comparison(names, weights is not None, blocks, total, _weights(total.norms), tuple(left_out))


def _order(module: Module) -> tuple[int, int, list[tuple[int, str]]]:
    """Return a sort key: the order in which the picture passes through the network, text encoders first."""
    component, path = module
    stages = ("conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block", "up_blocks")
    first = path.partition(".")[0]
    words = [(int(word), "") if word.isdecimal() else (-1, word) for word in path.split(".")]
    stage = stages.index(first) if first in stages else len(stages)
    return ("text_encoder", "text_encoder_2", "unet").index(component), stage, words


def _uncompared(adapters: Sequence[Adapter]) -> list[str]:
    sentences: list[str] = []
    for adapter in adapters:
        if adapter.biases:
            count = len(adapter.biases)
            sentences.append(f"{shown(adapter.name)}: changes of {count} bias{'es' * (count != 1)}")
        if adapter.embeddings:
            sentences.append(f"{shown(adapter.name)}: the words {', '.join(map(shown, adapter.embeddings))}")
    return sentences


def _products(adapters: Sequence[Adapter], module: Module, weight: np.ndarray | None) -> np.ndarray:
    """Return ⟨ΔWᵢ, ΔWⱼ⟩ of one module for all pairs, float64; zeros for adapters that do not change it."""
    products = np.zeros((len(adapters), len(adapters)))
    having = [i for i, adapter in enumerate(adapters) if module in adapter.deltas]
    pairs = [factors_of(adapters[i], module) for i in having]
    factors = [(pair[0].reshape(len(pair[0]), -1), pair[1]) for pair in pairs if pair is not None]
    if len(factors) < len(having):
        read = None if weight is None else lambda *_: weight
        changes = [dense_change(adapters[i], module, read).reshape(-1).astype(np.float64) for i in having]
        products[np.ix_(having, having)] = [[a @ b for b in changes] for a in changes]
        return products
    _check_shapes(module, [adapters[i] for i in having], factors)
    down = np.concatenate([down for down, _ in factors]).astype(np.float64)
    up = np.concatenate([up for _, up in factors], axis=1).astype(np.float64)
    # ⟨up₁·down₁, up₂·down₂⟩ = Σ (up₁ᵀ·up₂) ∘ (down₁·down₂ᵀ): sums over the blocks of one small matrix.
    starts = np.cumsum([0, *(len(down) for down, _ in factors[:-1])])
    sums = np.add.reduceat(np.add.reduceat((up.T @ up) * (down @ down.T), starts, axis=0), starts, axis=1)
    products[np.ix_(having, having)] = sums
    return products


def _check_shapes(
    module: Module, adapters: Sequence[Adapter], factors: Sequence[tuple[np.ndarray, np.ndarray]]
) -> None:
    sizes = [(len(up), down.shape[1]) for down, up in factors]
    for adapter, size in zip(adapters, sizes, strict=True):
        if size != sizes[0]:
            raise AdapterError(
                f"{' '.join(module)} is {sizes[0][0]}×{sizes[0][1]} in {shown(adapters[0].name)}, but "
                f"{size[0]}×{size[1]} in {shown(adapter.name)}; they are for different models"
            )


def _block(component: str, name: str, modules: int, products: np.ndarray, square: float) -> Block:
    norms = np.sqrt(np.maximum(np.diagonal(products), 0))
    lengths = np.outer(norms, norms)
    cosines = np.divide(products, lengths, out=np.full_like(products, np.nan), where=lengths > 0)
    return Block(component, name, modules, norms / np.sqrt(square) if square else norms, np.clip(cosines, -1, 1))


def _weights(norms: np.ndarray) -> tuple[float | None, ...]:
    """Return weights that make all changes as large as the smallest, so that none is stronger than it was trained."""
    used = norms[norms > 0]
    return tuple(float(used.min() / norm) if norm > 0 else None for norm in norms)


def _plain(block: Block) -> dict[str, Any]:
    cosines = [[None if np.isnan(value) else float(value) for value in row] for row in block.cosines]
    norms = [float(value) for value in block.norms]
    values: Mapping[str, Any] = {"component": block.component, "block": block.name, "modules": block.modules}
    return {**values, "norms": norms, "cosines": cosines}

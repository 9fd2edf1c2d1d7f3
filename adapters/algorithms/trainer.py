"""What kohya's header says about a training with LyCORIS and the tensors cannot: rs_lora, and the blocks of a DyLoRA.

`ss_network_args` are the arguments of the network, as text. LyCORIS 4.1 (`lycoris/modules/`) trains with these scales
and stores these alphas, where d is the rank that was asked for:

- LoKr of two whole matrices with rs_lora: scale √d, alpha d√d. Without rs_lora: scale 1, alpha d.
- GLoRA with rs_lora: scale alpha / √d. Its other algorithms multiply the stored alpha by √d instead.
- DyLoRA: scale alpha / (number of blocks), where kohya's own `networks.dylora` has alpha / rank.

Its own loader does not read them, so a file gives a weaker change there than in training.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from lorablend.adapters.files.file import Tensor
from lorablend.adapters.wording import shown

__all__ = ["Trainer", "read_trainer", "without_trainer"]

_ARGUMENTS = "ss_network_args"
_LONGEST = 100_000  # characters of ss_network_args that are read
_TOLERANCE = 0.01  # an alpha may be stored in bfloat16
_BLOCK = 4  # LyCORIS' default
_FLAGS = ("rs_lora", "use_rslora", "rslora")
_STALE = ("rs_lora", "block_size")  # arguments that our tools' files no longer follow


@dataclass(frozen=True)
class Trainer:
    """The arguments of a training with LyCORIS, as far as they change a scale.

    Attributes:
        known: The header has the arguments at all.
        rs_lora: The scale was divided by √rank.
        block: The ranks of one block of a DyLoRA; 0 for other algorithms.
        ranks: The ranks that were asked for, of linear layers and of convolutions.
        unsure: What else the header says, that may or may not be in the alphas already.
    """

    known: bool = False
    rs_lora: bool = False
    block: int = 0
    ranks: tuple[float, ...] = ()
    unsure: str = ""

    def scale_of(self, roles: Mapping[str, Tensor], alpha: float, rank: int | None) -> float | None:
        """Return the scale of a module if the header is sure that it is not alpha / rank, else None."""
        if rank is None:
            trained = alpha ** (1 / 3) if self.rs_lora and alpha > 0 else 0.0  # (d√d)^⅓ = √d
            return trained if any(_alike(trained**2, asked) for asked in self.ranks) else None
        if self.rs_lora and "a1" in roles:
            return alpha / math.sqrt(rank)
        if self.block and roles.keys() >= {"down", "up"} and rank % self.block == 0:
            return alpha * self.block / rank
        return None

    def doubts(self, whole: Collection[float], glora_ranks: Collection[int]) -> list[str]:
        """Return warnings about scales that may differ from those of the training.

        Args:
            whole: The alphas of LoKr modules of two whole matrices that are applied with scale 1.
            glora_ranks: The ranks of GLoRA modules.
        """
        doubts = [self.unsure] if self.unsure else []
        roots = {alpha: round(alpha ** (2 / 3)) for alpha in whole if alpha > 0}
        rooted = sorted({root for alpha, root in roots.items() if self._looks_stabilised(alpha, root)})
        if rooted:
            alphas = ", ".join(f"{alpha:g}" for alpha in sorted(roots))
            doubts.append(
                f"LoKr of whole matrices with alpha {alphas}: applied with scale 1, as LyCORIS does; if it is too "
                f"weak, it was trained with rs_lora at {math.sqrt(rooted[-1]):.3g} times the strength"
            )
        if not self.known and max(glora_ranks, default=0) > 1:
            doubts.append(
                "GLoRA without ss_network_args, which would say whether it was trained with rs_lora: applied without; "
                f"if it is too weak, it was trained with it, at {math.sqrt(max(glora_ranks)):.3g} times the strength"
            )
        return doubts

    def _looks_stabilised(self, alpha: float, root: int) -> bool:
        if self.rs_lora:
            return True
        return not self.known and root > 1 and alpha != round(alpha) and _alike(alpha, root**1.5)


def read_trainer(metadata: Mapping[str, str]) -> Trainer:
    """Read kohya's entries about the network; an empty Trainer if LyCORIS was not used, or if they make no sense."""
    arguments = _arguments(metadata)
    if arguments is None:
        return Trainer()
    if (module := metadata.get("ss_network_module")) != "lycoris.kohya":
        unsure = ""
        if any(str(arguments.get(name, False)).lower() in ("true", "1") for name in _FLAGS):
            unsure = (
                f"the header says that {shown(module)} trained with rs_lora: applied with alpha / rank; if it is too "
                "weak, its alphas do not contain that, and it was trained at √rank times the strength"
            )
        return Trainer(known=True, unsure=unsure)
    linear = _positive(metadata.get("ss_network_dim"), 4)
    dynamic = str(arguments.get("algo") or "lora").lower() == "dylora"
    ours = "." not in str(arguments.get("preset") or "")  # a preset of its own may mix algorithms
    block = int(_positive(arguments.get("block_size"), _BLOCK)) if dynamic else 0
    unsure = (
        f"the header says DyLoRA with a preset of its own, {shown(arguments.get('preset'))}: applied with alpha / "
        f"rank; if it is too weak, it was trained at {block} times the strength"
    )
    return Trainer(
        known=True,
        rs_lora=str(arguments.get("rs_lora", False)).lower() != "false",  # so LyCORIS reads it
        block=block if ours else 0,
        ranks=(linear, _positive(arguments.get("conv_dim"), linear)),
        unsure=unsure if block and not ours else "",
    )


def without_trainer(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a file whose alphas say all: without the arguments that would change the scale again."""
    arguments = _arguments(metadata)
    if not arguments:
        return dict(metadata)
    kept = {name: value for name, value in arguments.items() if name not in _STALE}
    if str(kept.get("algo")).lower() == "dylora":
        kept["algo"] = "lora"
    if kept == arguments:
        return dict(metadata)
    return {**metadata, _ARGUMENTS: json.dumps(kept, ensure_ascii=False)}


def _arguments(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    text = metadata.get(_ARGUMENTS, "")
    try:
        arguments = json.loads(text) if len(text) <= _LONGEST else None
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None


def _positive(value: object, default: float) -> float:
    try:
        number = float(str(value))
    except ValueError:
        return default
    return number if math.isfinite(number) and number >= 1 else default


def _alike(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_TOLERANCE)

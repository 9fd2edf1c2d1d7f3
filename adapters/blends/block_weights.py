"""Weights per block of the UNet: lists and presets of the block-weight extension, SD.Next's thirds, diffusers paths.

The extension is hako-mikan/sd-webui-lora-block-weight for A1111 and Forge. It numbers blocks as SGM names them:

    BASE   the text encoders
    INnn   input_blocks.nn    IN00: conv_in; IN(3b+l+1): down_blocks.b.resnets.l, .attentions.l; IN(3b+3): .downsamplers
    M00    middle_block       mid_block
    OUTnn  output_blocks.nn   OUT(3b+l): up_blocks.b.resnets.l, .attentions.l; the last l of b: .upsamplers too

Modules outside of all blocks (time_embedding, add_embedding, conv_norm_out, conv_out) keep the adapter's weight.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from lorablend.adapters.base_model import BASE_NAMES
from lorablend.adapters.errors import BlendError
from lorablend.adapters.forms import did_you_mean, finite
from lorablend.adapters.names.modules import TOPOLOGIES, bases_of, text_encoder_modules, unet_modules
from lorablend.adapters.wording import shown

__all__ = ["BLOCKS", "LISTS", "PRESETS", "BlockWeights", "block_of"]

_IN = tuple(f"IN{number:02}" for number in range(12))
_OUT = tuple(f"OUT{number:02}" for number in range(12))
BLOCKS = ("BASE", *_IN, "M00", *_OUT)

_SD = ("sd15", "sd2")
_SDXL = ("sdxl",)

# Length of a list -> (base models that it is for, block of each position). A block that a list does not name gets 0, as
# in the extension (`to26`). The short lists name the blocks that have attention.
LISTS: Mapping[int, tuple[tuple[str, ...], tuple[str, ...]]] = {
    12: (_SDXL, ("BASE", "IN04", "IN05", "IN07", "IN08", "M00", *_OUT[:6])),
    17: (_SD, ("BASE", "IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "M00", *_OUT[3:])),
    20: (_SDXL, ("BASE", *_IN[:9], "M00", *_OUT[:9])),
    26: (_SD, BLOCKS),
}

# Name -> (the blocks that are on, their weight); the others get 0. The extension stores its presets as lists of 17,
# which leave out convolutions and, on SDXL, OUT00 to OUT02. Here they are ranges of names instead, with the same effect
# on those 17 blocks.
PRESETS: Mapping[str, tuple[tuple[str, ...], float]] = {
    "NONE": ((), 0.0),
    "ALL": (BLOCKS, 1.0),
    "ALL0.5": (BLOCKS, 0.5),
    "INS": (("BASE", *_IN[:5]), 1.0),
    "IND": (("BASE", *_IN[5:]), 1.0),
    "INALL": (("BASE", *_IN), 1.0),
    "MIDD": (("BASE", *_IN[5:], "M00", *_OUT[:7]), 1.0),
    "OUTD": (("BASE", *_OUT[:7]), 1.0),
    "OUTS": (("BASE", *_OUT[7:]), 1.0),
    "OUTALL": (("BASE", *_OUT), 1.0),
}

_THIRDS = ("in", "mid", "out")
_BASE_NAMES = {base: BASE_NAMES[base] for base in (*_SD, *_SDXL)}


@dataclass(frozen=True)
class BlockWeights:
    """How the weight of an adapter changes from block to block.

    The factors from `lbw` and `paths` multiply.

    Attributes:
        lbw: A list of 12, 17, 20 or 26 factors, one per block, or the name of a preset, as in A1111's block-weight
            extension (hako-mikan/sd-webui-lora-block-weight).
        paths: Pairs of a path, such as "down_blocks.2" or "text_encoder.text_model", and a factor for all modules below
            it. If several paths match, the longest one decides.
        down: Replaces the weight in down_blocks, like SD.Next's `in=`, and as there also in all modules of the UNet
            that are outside of down_blocks, mid_block and up_blocks.
        mid: Replaces the weight in mid_block, like SD.Next's `mid=`.
        up: Replaces the weight in up_blocks, like SD.Next's `out=`.

    Raises:
        BlendError: A list has the wrong length, a preset or a path does not exist, or a number is not finite.
    """

    lbw: tuple[float, ...] | str | None = None
    paths: tuple[tuple[str, float], ...] = ()
    down: float | None = None
    mid: float | None = None
    up: float | None = None

    def __post_init__(self) -> None:
        if self.lbw is not None:
            object.__setattr__(self, "lbw", _lbw(self.lbw))
        for key, third in zip(("down", "mid", "up"), _THIRDS, strict=True):
            value = getattr(self, key)
            object.__setattr__(self, key, None if value is None else finite(value, third))
        object.__setattr__(self, "paths", tuple(sorted(_paths(self.paths).items())))

    def weight(self, component: str, path: str, weight: float) -> float:
        """Return the weight of one module.

        Args:
            component: "unet", "text_encoder" or "text_encoder_2".
            path: The module path, as in diffusers.
            weight: The adapter's weight for this component.
        """
        if component == "unet":
            third = {"mid_block": self.mid, "up_blocks": self.up}.get(path.partition(".")[0], self.down)
            weight = weight if third is None else third
        if self._factors is not None and (block := block_of(component, path)):
            weight *= self._factors.get(block, 0.0)
        return weight * self._path_factor(path if component == "unet" else f"{component}.{path}")

    def check_base(self, base_model: str) -> None:
        """Raise BlendError if the list or a path does not exist for this base model ("sdxl", "unknown"…)."""
        if base_model not in _BASE_NAMES:
            return
        own = _BASE_NAMES[base_model]
        if isinstance(self.lbw, tuple) and base_model not in (bases := LISTS[len(self.lbw)][0]):
            fitting = " or ".join(str(length) for length, (fits, _) in LISTS.items() if base_model in fits)
            raise BlendError(
                f"lbw has {len(self.lbw)} numbers, which is for {_base_names(bases)}, but the adapter is for {own}; "
                f"give {fitting} numbers"
            )
        for prefix, _ in self.paths:
            if base_model not in (bases := _prefixes()[prefix]):
                raise BlendError(
                    f"{prefix} is in {_base_names(bases)}, but the adapter is for {own}, which has no such block"
                )

    def to_json(self) -> Any:
        """Return the JSON form: a preset's name, a list, or `{"lbw": …, "in": …, "mid": …, "out": …, path: …}`."""
        lbw = list(self.lbw) if isinstance(self.lbw, tuple) else self.lbw
        thirds = dict(zip(_THIRDS, (self.down, self.mid, self.up), strict=True))
        form = {"lbw": lbw, **thirds, **dict(self.paths)}
        form = {key: value for key, value in form.items() if value is not None}
        return lbw if list(form) == ["lbw"] else form

    @classmethod
    def from_json(cls, form: object) -> "BlockWeights":
        """Read the JSON form. Raises BlendError."""
        if not isinstance(form, Mapping):
            return cls(lbw=form)  # pyright: ignore[reportArgumentType] - the class checks it
        fields: dict[Any, Any] = dict(form)
        lbw, down, mid, up = (fields.pop(key, None) for key in ("lbw", *_THIRDS))
        return cls(lbw, tuple(fields.items()), down, mid, up)

    @cached_property
    def _factors(self) -> dict[str, float] | None:
        """The factors of the list or the preset, by block."""
        if self.lbw is None:
            return None
        if isinstance(self.lbw, str):
            blocks, value = PRESETS[self.lbw]
            return dict.fromkeys(blocks, value)
        return dict(zip(LISTS[len(self.lbw)][1], self.lbw, strict=True))

    @cached_property
    def _path_factors(self) -> dict[str, float]:
        return dict(self.paths)

    def _path_factor(self, path: str) -> float:
        while self.paths and path:
            if path in self._path_factors:
                return self._path_factors[path]
            path = path.rpartition(".")[0]
        return 1.0


def block_of(component: str, path: str) -> str | None:
    """Return the block (of `BLOCKS`) that a module is in; None for modules of the UNet that are in no block."""
    return _blocks().get(path) if component == "unet" else "BASE"


@cache
def _blocks() -> dict[str, str | None]:
    """Return the block of each UNet module path. The models agree: SGM numbers the blocks of all in the same way."""
    kinds = {"input_blocks": "IN", "middle_block": "M", "output_blocks": "OUT"}
    blocks: dict[str, str | None] = {}
    for topology in TOPOLOGIES.values():
        for path, sgm in unet_modules(topology):
            match = re.match(r"(input_blocks|output_blocks|middle_block)\.(\d+)", sgm)
            number = 0 if sgm.startswith("middle_block") else int(match[2]) if match else 0
            blocks[path] = f"{kinds[match[1]]}{number:02}" if match else None
    return blocks


@cache
def _prefixes() -> dict[str, frozenset[str]]:
    """Return the base models that have each path, of a module or with modules below it."""
    prefixes: dict[str, frozenset[str]] = {}
    names = [(path, bases_of(path)) for path in _blocks()]
    for component, bases in (("text_encoder", frozenset(_BASE_NAMES)), ("text_encoder_2", frozenset(_SDXL))):
        names += [(f"{component}.{path}", bases) for path in text_encoder_modules()]
    for name, bases in names:
        while name:
            prefixes[name] = prefixes.get(name, frozenset()) | bases
            name = name.rpartition(".")[0]
    return prefixes


def _lbw(value: object) -> tuple[float, ...] | str:
    if isinstance(value, str):
        names = {name.casefold(): name for name in PRESETS}
        if value.strip().casefold() not in names:
            raise BlendError(f'lbw "{shown(value)}" is neither a preset nor a list; {did_you_mean(value, PRESETS)}')
        return names[value.strip().casefold()]
    if not isinstance(value, Sequence):
        raise BlendError(f"lbw {shown(value)} is neither a preset nor a list")
    if len(value) not in LISTS:
        raise BlendError(f"lbw has {len(value)} numbers; give 12 or 20 for SDXL, 17 or 26 for SD 1.5 and SD 2")
    return tuple(finite(number, "lbw") for number in value)


def _paths(pairs: Sequence[tuple[object, object]]) -> dict[str, float]:
    paths: dict[str, float] = {}
    for key, value in pairs:
        prefix = str(key).removeprefix("unet.")
        if prefix not in _prefixes():
            shallow = [known for known in _prefixes() if known.count(".") <= 3]
            raise BlendError(f'there is no module under "{shown(key)}"; {_nearest_path(prefix, shallow)}')
        if prefix in paths:
            raise BlendError(f"{prefix} is given twice")
        paths[prefix] = finite(value, prefix)
    return paths


def _nearest_path(prefix: str, known: Sequence[str]) -> str:
    hint = did_you_mean(prefix, known)
    return hint if hint.startswith("did") else "write down_blocks.2, mid_block or up_blocks.0.attentions.1"


def _base_names(bases: Sequence[str] | frozenset[str]) -> str:
    return " and ".join(name for base, name in _BASE_NAMES.items() if base in bases)

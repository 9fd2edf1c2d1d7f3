"""A blend: adapters with their weights, where and when each of them acts, and how they are combined."""

import json
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from lorablend.adapters.adapter import Adapter
from lorablend.adapters.blends.block_weights import BlockWeights
from lorablend.adapters.blends.mask import Mask
from lorablend.adapters.blends.schedule import Schedule
from lorablend.adapters.errors import BlendError
from lorablend.adapters.forms import did_you_mean, finite
from lorablend.adapters.wording import shown

__all__ = ["MAX_ITEMS", "MODES", "Blend", "BlendItem"]

MODES = ("sum", "switch", "composite")
MAX_ITEMS = 16


@dataclass(frozen=True)
class BlendItem:
    """An adapter with the user's weight for it.

    Settings that change nothing are replaced by None, so that items with the same effect compare equal.

    Attributes:
        adapter: The adapter.
        weight: 1 applies the adapter as trained, 0 not at all, a negative number in the opposite direction.
        unet: Replaces `weight` for the UNet.
        text_encoder: Replaces `weight` for the text encoders.
        blocks: Changes the weight block by block.
        schedule: Multiplies the weight in each step.
        mask: Where in the picture the adapter acts; None means everywhere.

    Raises:
        BlendError: A weight is not a finite number, or `blocks` do not exist in the adapter's base model.
    """

    adapter: Adapter
    weight: float = 1.0
    unet: float | None = None
    text_encoder: float | None = None
    blocks: BlockWeights | None = None
    schedule: Schedule | None = None
    mask: Mask | None = None

    def __post_init__(self) -> None:
        name = shown(self.adapter.name)
        weight = finite(self.weight, f"{name}: weight")
        object.__setattr__(self, "weight", weight)
        for key in ("unet", "text_encoder"):
            if (value := getattr(self, key)) is not None:
                value = finite(value, f"{name}: {key}")
                object.__setattr__(self, key, None if value == weight else value)
        if self.blocks is not None:
            try:
                self.blocks.check_base(self.adapter.base_model)
            except BlendError as error:
                raise BlendError(f"{name}: {error}") from None
        object.__setattr__(self, "blocks", None if self.blocks == BlockWeights() else self.blocks)
        object.__setattr__(self, "schedule", None if self.schedule == Schedule() else self.schedule)

    def weight_of(self, component: str, path: str) -> float:
        """Return the weight of one module, without the schedule and the mask.

        Args:
            component: "unet", "text_encoder" or "text_encoder_2".
            path: The module path, as in diffusers.
        """
        own = self.unet if component == "unet" else self.text_encoder
        weight = self.weight if own is None else own
        return weight if self.blocks is None else self.blocks.weight(component, path, weight)

    def factor(self, step: int, steps: int) -> float:
        """Return the schedule's factor in step `step`, counted from 0, of a run of `steps` steps."""
        return 1.0 if self.schedule is None else self.schedule.at(step, steps)

    @property
    def static_key(self) -> Hashable:
        """A key; two items with equal keys have the same `weight_of` for every module."""
        return self.weight, self.unet, self.text_encoder, self.blocks

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: the adapter's name, the weight, and the settings that are not None."""
        form: dict[str, Any] = {"adapter": self.adapter.name, "weight": self.weight}
        form |= {"unet": self.unet, "text_encoder": self.text_encoder}
        for key in ("blocks", "schedule", "mask"):
            value = getattr(self, key)
            form[key] = None if value is None else value.to_json()
        return {key: value for key, value in form.items() if value is not None}


@dataclass(frozen=True)
class Blend:
    """At most 16 adapters with their weights, in the user's order.

    The same adapter may appear more than once. A blend is iterable and has a length.

    Attributes:
        items: The adapters with their weights.
        mode: "sum" applies all adapters at once and adds up their changes, in any order. The other two are from
            Multi-LoRA Composition (https://arxiv.org/abs/2402.16843): "switch" applies one adapter at a time, in turn;
            "composite" runs the model once per adapter and averages the results.
        switch_steps: The number of steps that each adapter has its turn for, in mode "switch".

    Raises:
        BlendError: There are too many items, or the mode or `switch_steps` is invalid.
    """

    items: tuple[BlendItem, ...] = ()
    mode: str = "sum"
    switch_steps: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple(self.items))
        if len(self.items) > MAX_ITEMS:
            raise BlendError(f"the blend has {len(self.items)} adapters; give at most {MAX_ITEMS}")
        if self.mode not in MODES:
            raise BlendError(f'blend mode "{shown(self.mode)}" is unknown; {did_you_mean(str(self.mode), MODES)}')
        if isinstance(self.switch_steps, bool) or not isinstance(self.switch_steps, int) or self.switch_steps < 1:
            raise BlendError(f"switch_steps is {shown(self.switch_steps)}; give a whole number of steps, 1 or more")
        if self.mode != "switch":
            object.__setattr__(self, "switch_steps", 1)

    def __iter__(self) -> Iterator[BlendItem]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def factors(self, step: int, steps: int) -> tuple[float, ...]:
        """Return the factor of each item's weight in one step, from its schedule and its turn.

        Args:
            step: The step, counted from 0.
            steps: The number of steps of the run.
        """
        turn = (step // self.switch_steps) % len(self.items) if self.mode == "switch" and self.items else None
        return tuple(
            item.factor(step, steps) if turn in (None, index) else 0.0 for index, item in enumerate(self.items)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form as a dict; `resolve_blend([form], lora_dir)` reads it back."""
        form: dict[str, Any] = {"mode": self.mode}
        if self.switch_steps != 1:
            form["switch_steps"] = self.switch_steps
        return form | {"items": [item.to_json() for item in self.items]}

    def to_json(self) -> str:
        """Return the JSON form as text: `{"mode": "sum", "items": [{"adapter": "ink", "weight": 0.8, …}, …]}`."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

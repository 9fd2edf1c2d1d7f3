"""A pedal of the board: one adapter with its knobs, as texts for the page's boxes and as an item of a blend."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from lorablend.adapters.errors import BlendError, RequestError

__all__ = ["Board", "Pedal", "blend_of", "board_of", "read_board", "style_of", "written_board"]


@dataclass(frozen=True, kw_only=True)
class Pedal:
    """One adapter with its knobs. Texts are "" if nothing is set.

    Attributes:
        adapter: The adapter's name.
        on: Whether the adapter is used.
        weight: Its weight.
        unet, text_encoder: Weights that replace `weight` there.
        blocks: A preset, a list of numbers, or the JSON form of a blend.
        start, stop: A step number, or with a decimal point a share of the run.
        ramp: Two factors.
        mask: Four edges, or the name of an upload.
    """

    adapter: str
    on: bool = True
    weight: float = 1.0
    unet: str = ""
    text_encoder: str = ""
    blocks: str = ""
    start: str = ""
    stop: str = ""
    ramp: str = ""
    mask: str = ""

    def item(self) -> dict[str, Any]:
        """The item of a blend. Raises BlendError for an invalid text."""
        form: dict[str, Any] = {"adapter": self.adapter, "weight": self.weight}
        form |= {"unet": self._weight("unet"), "text_encoder": self._weight("text_encoder")}
        form |= {"blocks": self._blocks(), "mask": self._mask()}
        schedule = {"start": self._bound("start"), "stop": self._bound("stop"), "ramp": self._numbers("ramp", 2)}
        form["schedule"] = {key: value for key, value in schedule.items() if value is not None} or None
        return {key: value for key, value in form.items() if value is not None}

    @classmethod
    def of_item(cls, item: Mapping[str, Any]) -> Pedal:
        """The pedal for an item in a blend's JSON form or in that of `style_of`."""
        schedule, blocks, mask = item.get("schedule") or {}, item.get("blocks"), item.get("mask")
        return cls(
            adapter=str(item["adapter"]),
            on=item.get("on", True) is not False,
            weight=float(item.get("weight", 1.0)),
            unet=_text(item.get("unet")),
            text_encoder=_text(item.get("text_encoder")),
            blocks=_joined(blocks) if isinstance(blocks, list) else _json(blocks),
            start=_text(schedule.get("start")),
            stop=_text(schedule.get("stop")),
            ramp=_joined(schedule.get("ramp") or ()),
            mask=mask if isinstance(mask, str) else _joined(mask or ()),
        )

    def _blocks(self) -> Any:
        text = self.blocks.strip()
        if text.startswith("{"):
            try:
                return json.loads(text)
            except ValueError as error:
                raise BlendError(
                    f"{self.adapter}: blocks are not valid JSON ({error}); write OUTALL, or 12 numbers"
                ) from None
        return self._numbers("blocks") if "," in text else text or None

    def _mask(self) -> Any:
        return self._numbers("mask", 4) if "," in self.mask else self.mask.strip() or None

    def _weight(self, name: str) -> float | None:
        text = str(getattr(self, name)).strip()
        return self._number(name, text) if text else None

    def _bound(self, name: str) -> int | float | None:
        text = str(getattr(self, name)).strip()
        if text.isdecimal():
            return int(text)
        return self._number(name, text) if text else None

    def _numbers(self, name: str, count: int = 0) -> list[float] | None:
        texts = [part for part in str(getattr(self, name)).split(",") if part.strip()]
        if count and texts and len(texts) != count:
            raise BlendError(f"{self.adapter}: {name} has {len(texts)} numbers; give {count}, separated by commas")
        return [self._number(name, text) for text in texts] or None

    def _number(self, name: str, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise BlendError(
                f'{self.adapter}: {name.replace("_", " ")} has "{text.strip()[:40]}"; give numbers'
            ) from None


Board = list[Pedal]
_BOARD = TypeAdapter(Board)


def blend_of(board: Board, mode: str, switch_steps: int) -> dict[str, Any]:
    """The blend of the pedals that are on, in its JSON form. Raises BlendError for an invalid text."""
    return style_of([pedal for pedal in board if pedal.on], mode, switch_steps)


def style_of(board: Board, mode: str, switch_steps: int) -> dict[str, Any]:
    """Like `blend_of`, but pedals that are off are included as items with `on` false; this is how boards are saved."""
    form: dict[str, Any] = {"mode": mode} | ({"switch_steps": switch_steps} if mode == "switch" else {})
    return form | {"items": [pedal.item() | ({} if pedal.on else {"on": False}) for pedal in board]}


def board_of(blend: Mapping[str, Any]) -> Board:
    """The pedals for a blend's JSON form or for that of `style_of`."""
    return [Pedal.of_item(item) for item in blend.get("items", ())]


def written_board(blend: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pedals for a blend's JSON form or for that of `style_of`, as the browser takes them."""
    return [asdict(pedal) for pedal in board_of(blend)]


def read_board(value: Any) -> Board:
    """The board as the browser sends it. Raises RequestError if it has none yet, and pydantic's ValidationError."""
    if value is None:
        raise RequestError("the page is still loading the pedal board; wait a moment, or reload the page")
    return _BOARD.validate_python(value)


def _json(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else _text(value)


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else repr(value)


def _joined(numbers: Any) -> str:
    return ", ".join(repr(number).removesuffix(".0") for number in numbers)

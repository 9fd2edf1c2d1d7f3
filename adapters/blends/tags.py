"""The text form of a blend: tags as in AUTOMATIC1111's web UI and its block-weight extension.

    <lora:ink>  <lora:ink:0.8>                weight, 1 if omitted
    <lora:ink:0.5:0.8>                        text encoders, UNet; also te=0.5 and unet=0.8; te= alone sets both
    :lbw=OUTALL  :lbw=1,0,0,…                 block weights: a preset, or 12, 17, 20 or 26 numbers; also :w=, or without
                                              a key after the weights, as in <lora:ink:0.8:OUTALL>
    :in=0.5:mid=1:out=0                       as in SD.Next: replaces the weight in down, mid and up blocks
    :blocks=down_blocks.2@0.5,mid_block@0     factors below diffusers paths (ours)
    :step=3-10  :start=3  :stop=10            on in steps 3 to 9; fractions of the run as 0.25
    :ramp=0-1                                 the factor from the window's first to its last step (ours)
    :mask=0,0,0.5,1  :mask=left.png           left, top, right, bottom; or a grey picture (ours)
    <blend:switch:2>  <blend:composite>       the mode of the whole blend (ours)

The order of A1111's parameters: extensions-builtin/Lora/extra_networks_lora.py.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from lorablend.adapters.blends.blend import Blend, BlendItem
from lorablend.adapters.blends.block_weights import PRESETS, BlockWeights
from lorablend.adapters.blends.schedule import Bound, Schedule
from lorablend.adapters.errors import BlendError
from lorablend.adapters.files.find import PromptName
from lorablend.adapters.forms import NUMBER, refuse_unknown, to_number, whole_number, write_number
from lorablend.adapters.wording import shown

__all__ = ["TAG_START", "checked_name", "read_tag", "read_tags", "write_tags"]

# Anything that starts like a tag must be one. "<lyco:" is the old spelling for algorithms other than LoRA.
TAG_START = re.compile(
    r"<\s*(?:(?P<kind>lora|lyco|hypernet)\b|(?P<blend>blend)\s*:)(?P<rest>[^<>]*)(?P<end>>?)", re.IGNORECASE
)

_KEYS = ("te", "unet", "dyn", "lbw", "in", "mid", "out", "blocks", "step", "start", "stop", "end", "ramp", "mask")
_RANGE = re.compile(rf"\s*({NUMBER})\s*-\s*({NUMBER})\s*")
_DRAWN = re.compile(r"[RU]|X([+-][\d.]+)?")  # in lists of the block-weight extension
_UNWRITABLE = re.compile(r"[:<>\n]")  # cannot be in a value of a tag
# Keys of the extensions that A1111's users have, and why each is refused.
_REFUSED = {
    "lbwe": "weights per element (lbwe=) are not supported; use lbw= or blocks=",
    "x": "a weight that block weights refer to (x=) is not supported; write each number",
    "hr": "a weight for the second pass (hr=) is not supported; there is one pass",
    "hrte": "a weight for the second pass (hrte=) is not supported; there is one pass",
    "hrunet": "a weight for the second pass (hrunet=) is not supported; there is one pass",
    "module": "another network module (module=) is not supported; there is one",
}
_BY_STEP = "weights per step (as in 0@0,1@0.5) are not supported; use step=, start=, stop= or ramp="


def read_tags(text: str) -> list[Any]:
    """Return the entries of a text that contains only tags, in order; names may be paths. Raises BlendError."""
    entries, end = [], 0
    for tag in TAG_START.finditer(text):
        if text[end : tag.start()].strip():
            break
        entries.append(read_tag(tag, from_prompt=False))
        end = tag.end()
    if text[end:].strip():
        raise BlendError(f'"{shown(text)}" is more than tags; write <lora:ink:0.8>, one after the other')
    return entries


def read_tag(tag: re.Match[str], *, from_prompt: bool) -> Any:
    """Read a match of `TAG_START` as an entry for `resolve_blend`: (name, weight) for a plain tag, else a dict.

    A name from a prompt becomes a `PromptName`, and may not be a path. Raises BlendError.
    """
    whole = shown(tag.group())
    if not tag["end"]:
        raise BlendError(f"{whole}: the tag has no closing >")
    if tag["blend"]:
        return _read_mode(whole, tag["rest"])
    if tag["kind"].lower() == "hypernet":
        raise BlendError(f"{whole}: hypernetworks are not supported; use adapters, as in <lora:name:0.8>")
    before, *fields = (field.strip() for field in tag["rest"].split(":"))
    if before or not fields or not fields[0]:
        raise BlendError(f"{whole}: no name in the tag; write <lora:name:0.8>")
    try:
        entry = _read_fields(fields[1:])
        entry["adapter"] = checked_name(fields[0]) if from_prompt else fields[0]
        if from_prompt and isinstance(entry.get("mask"), str):
            entry["mask"] = checked_name(entry["mask"])
    except BlendError as error:
        raise BlendError(f"{whole}: {error}") from None
    return (entry["adapter"], entry["weight"]) if len(entry) == 2 else entry


def write_tags(blend: Blend, names: Sequence[str] | None = None) -> list[str]:
    """Write a blend as tags, from which it can be read back.

    Characters in a name that cannot be in a tag (colons, angle brackets, line breaks) become underscores.

    Args:
        blend: The blend.
        names: The names to write for the adapters, one per item; None for their own names.

    Returns:
        One tag per item, and if the mode is not "sum", a last one for the mode.
    """
    names = [item.adapter.name for item in blend] if names is None else names
    tags = [_write_item(_writable(name), item) for name, item in zip(names, blend, strict=True)]
    if blend.mode != "sum":
        tags.append(f"<blend:{blend.mode}{f':{blend.switch_steps}' if blend.switch_steps != 1 else ''}>")
    return tags


def _read_mode(whole: str, rest: str) -> dict[str, Any]:
    mode, *steps = (field.strip() for field in rest.split(":"))
    counts = [whole_number(count) for count in steps]
    if len(steps) > 1 or None in counts:
        raise BlendError(
            f"{whole}: write <blend:switch>, <blend:switch:2> for turns of two steps, or <blend:composite>"
        )
    try:
        blend = Blend((), mode.lower(), *(count for count in counts if count is not None))
    except BlendError as error:
        raise BlendError(f"{whole}: {error}") from None
    return {"mode": blend.mode, "switch_steps": blend.switch_steps, "items": []}


def _read_fields(fields: Sequence[str]) -> dict[str, Any]:
    positional = [field for field in fields if "=" not in field]
    named: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        if "@" in field and (not equals or key.strip().lower() in ("te", "unet")):
            raise BlendError(_BY_STEP)
        if equals:
            _name(named, key.strip().lower(), value.strip())
    positional = _without_blocks(positional, named)
    if len(positional) > 3:
        raise BlendError(f'"{shown(positional[3])}" is one value too many; write <lora:name:te:unet>, then key=value')
    if len(positional) == 3 or "dyn" in named:
        raise BlendError("a rank for one adapter (dyn) is not supported; max_rank applies to the whole blend")
    return _weights(positional, named) | _extras(named)


def _name(named: dict[str, str], key: str, value: str) -> None:
    """Add a value that was given by its key. The block-weight extension has w= for lbw= too."""
    if key in _REFUSED:
        raise BlendError(_REFUSED[key])
    key = "lbw" if key == "w" else key
    refuse_unknown([key], _KEYS)
    if key in named:
        raise BlendError(f"{key}= is given twice")
    named[key] = value


def _without_blocks(positional: list[str], named: dict[str, str]) -> list[str]:
    """Take out a preset or list of block weights that stands without a key behind the first weight."""
    for place, field in enumerate(positional[1:], 1):
        if "," in field or field.upper() in PRESETS:
            if len(positional) > place + 1:
                raise BlendError(_REFUSED["lbwe"])
            _name(named, "lbw", field)
            return positional[:place]
    return positional


def _weights(positional: Sequence[str], named: dict[str, str]) -> dict[str, Any]:
    """Apply A1111's rule: te is the first value or te=; unet is the second value or unet=, or else the same as te."""
    weight = to_number(positional[0], "weight") if positional else 1.0
    unet = named.get("unet", positional[1] if len(positional) > 1 else None)
    if "te" not in named:
        return {"weight": weight} | ({} if unet is None else {"unet": to_number(unet, "unet weight")})
    te = to_number(named["te"], "te")
    if unet is None:
        return {"weight": te}
    return {"weight": weight, "unet": to_number(unet, "unet weight"), "text_encoder": te}


def _extras(named: dict[str, str]) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if blocks := {key: named[key] for key in ("lbw", "in", "mid", "out", "blocks") if key in named}:
        extras["blocks"] = _blocks(**{key if key != "in" else "down": value for key, value in blocks.items()})
    if any(key in named for key in ("step", "start", "stop", "end", "ramp")):
        extras["schedule"] = _schedule(named)
    if "mask" in named:
        value = named["mask"]
        edges = value.split(",")
        box = len(edges) == 4 and all(re.fullmatch(NUMBER, edge.strip()) for edge in edges)
        if not value:
            raise BlendError("mask= is empty; give a box as left,top,right,bottom, or a picture")
        extras["mask"] = tuple(to_number(edge, "mask edge") for edge in edges) if box else value
    return extras


def _blocks(
    lbw: str | None = None,
    blocks: str | None = None,
    down: str | None = None,
    mid: str | None = None,
    out: str | None = None,
) -> BlockWeights:
    values = None
    if lbw is not None:
        values = tuple(map(_block_weight, lbw.split(","))) if "," in lbw else lbw
    paths = []
    for pair in (blocks or "").split(",") if blocks is not None else ():
        path, at, factor = pair.rpartition("@")
        if not at:
            raise BlendError(f'blocks "{shown(pair)}" has no factor; write blocks=down_blocks.2@0.5,mid_block@0')
        paths.append((path.strip(), to_number(factor, path.strip())))
    thirds = (
        None if text is None else to_number(text, key) for key, text in (("in", down), ("mid", mid), ("out", out))
    )
    return BlockWeights(values, tuple(paths), *thirds)


def _block_weight(text: str) -> float:
    if _DRAWN.fullmatch(text.strip()):
        raise BlendError(f'lbw has "{shown(text.strip())}", a weight drawn by chance or taken over; give a number')
    return to_number(text, "lbw")


def _schedule(named: dict[str, str]) -> Schedule:
    bounds = [key for key in ("step", "start", "stop", "end") if key in named]
    if ("step" in bounds and len(bounds) > 1) or ("stop" in bounds and "end" in bounds):
        raise BlendError(f"{' and '.join(f'{key}=' for key in bounds)} mean the same thing; give one of them")
    start, stop = named.get("start"), named.get("stop", named.get("end"))
    if "step" in named:
        start, stop = _range("step", named["step"], "step=3-10")
    ramp = None
    if "ramp" in named:
        low, high = _range("ramp", named["ramp"], "ramp=0-1")
        ramp = to_number(low, "ramp"), to_number(high, "ramp")
    return Schedule(_bound("start", start), _bound("stop", stop), ramp)


def _range(key: str, text: str, example: str) -> tuple[str, str]:
    match = _RANGE.fullmatch(text)
    if not match:
        raise BlendError(f'{key} "{shown(text)}" is not a range; write {example}')
    return match[1], match[2]


def _bound(key: str, text: str | None) -> Bound:
    if text is None:
        return None
    step = whole_number(text)
    return to_number(text, key) if step is None else step


def checked_name(name: str) -> PromptName:
    """Return an untrusted name as a `PromptName`. Raises BlendError if it is a path."""
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or re.match(r"[A-Za-z]:", name):
        raise BlendError(f'"{shown(name)}" is a path; in a prompt, give a name')
    return PromptName(name)


def _write_item(name: str, item: BlendItem) -> str:
    fields = ["lora", name, write_number(item.weight)]
    if item.text_encoder is not None:  # te= alone would set the UNet's weight too
        unet = item.weight if item.unet is None else item.unet
        fields += [f"te={write_number(item.text_encoder)}", f"unet={write_number(unet)}"]
    elif item.unet is not None:
        fields.append(write_number(item.unet))
    fields += _write_blocks(item.blocks) if item.blocks else ()
    fields += _write_schedule(item.schedule) if item.schedule else ()
    if item.mask:
        form = item.mask.to_json()
        fields.append(f"mask={_writable(form) if isinstance(form, str) else _joined(form)}")
    return f"<{':'.join(fields)}>"


def _write_blocks(blocks: BlockWeights) -> Iterator[str]:
    if blocks.lbw is not None:
        yield f"lbw={blocks.lbw if isinstance(blocks.lbw, str) else _joined(blocks.lbw)}"
    for key, value in (("in", blocks.down), ("mid", blocks.mid), ("out", blocks.up)):
        if value is not None:
            yield f"{key}={write_number(value)}"
    if blocks.paths:
        yield f"blocks={','.join(f'{path}@{write_number(factor)}' for path, factor in blocks.paths)}"


def _write_schedule(schedule: Schedule) -> Iterator[str]:
    if schedule.start is not None and schedule.stop is not None:
        yield f"step={schedule.start!r}-{schedule.stop!r}"
    elif schedule.start is not None:
        yield f"start={schedule.start!r}"
    elif schedule.stop is not None:
        yield f"stop={schedule.stop!r}"
    if schedule.ramp:
        yield f"ramp={'-'.join(map(write_number, schedule.ramp))}"


def _joined(numbers: Sequence[float]) -> str:
    return ",".join(map(write_number, numbers))


def _writable(name: str) -> str:
    return _UNWRITABLE.sub("_", name)

"""Adapters named in a prompt, `<lora:name:0.8>` as AUTOMATIC1111's web UI writes it, and on the command line."""

import math
import re

from ._wording import shown
from .errors import BlendError

__all__ = ["parse_lora_option", "parse_prompt"]

# Anything that starts like a tag must be one; "<lyco:" is the old spelling for the algorithms beyond LoRA.
_TAG_START = re.compile(r"<\s*(?P<kind>lora|lyco|hypernet)\b(?P<rest>[^<>]*)(?P<end>>?)", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


def parse_prompt(text: str) -> tuple[str, list[tuple[str, float]]]:
    """Take the tags out of a prompt: (the text without them, [(name, weight), …] in their order).

    A tag without a weight means 1. Raises BlendError for a tag that is malformed or that says more than one weight.
    """
    blend: list[tuple[str, float]] = []
    parts: list[str] = []
    end = 0
    for tag in _TAG_START.finditer(text):
        blend.append(_tag(tag))
        parts.append(text[end : tag.start()])
        end = tag.end()
    if not blend:
        return text, []
    rest = parts[0]
    for part in (*parts[1:], text[end:]):  # one space, not two, where a tag stood between two
        rest += part[1:] if rest.endswith(" ") and part.startswith(" ") else part
    return rest.strip(), blend


def _tag(tag: re.Match[str]) -> tuple[str, float]:
    whole = shown(tag.group())
    if not tag.group("end"):
        raise BlendError(f"{whole}: the tag has no closing >")
    if tag.group("kind").lower() == "hypernet":
        raise BlendError(f"{whole}: hypernetworks cannot be applied, only adapters as in <lora:name:0.8>")
    before, *fields = tag.group("rest").split(":")
    if before.strip() or not fields or not fields[0].strip():
        raise BlendError(f"{whole}: no name in the tag; write <lora:name:0.8>")
    name = fields[0].strip()
    if len(fields) > 2 or any("=" in field for field in fields[1:]):
        raise BlendError(
            f"{whole}: one weight for the whole adapter is understood so far; write <lora:{shown(name)}:0.8>"
        )
    return name, _weight(whole, fields[1].strip()) if len(fields) == 2 else 1.0


def parse_lora_option(text: str) -> tuple[str, float]:
    """Read "FILE" or "FILE:WEIGHT": (file or name, weight), weight 1 if there is none.

    What follows the last colon is the weight if it is a number, so a Windows drive or a colon in a name does no harm.
    Raises BlendError for an empty name and for a weight that is empty, NaN or infinite.
    """
    whole = shown(text)
    name, colon, weight = text.rpartition(":")
    weight = weight.strip()
    if not colon or not (_NUMBER.fullmatch(weight) or _NOT_FINITE.fullmatch(weight) or not weight):
        name, weight = text, "1"
    if not name.strip():
        raise BlendError(f'"{whole}": no file; write FILE or FILE:WEIGHT')
    return name.strip(), _weight(f'"{whole}"', weight)


def _weight(whole: str, text: str) -> float:
    weight = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(weight):
        raise BlendError(f'{whole}: weight "{shown(text)}" is not a finite number')
    return weight

"""Adapters that are named in a prompt, as `<lora:name:0.8>` like in AUTOMATIC1111's web UI, or on the command line."""

import re
from typing import Any

from lorablend.adapters.blends.tags import TAG_START, read_tag, read_tags
from lorablend.adapters.errors import BlendError
from lorablend.adapters.forms import NUMBER, to_number
from lorablend.adapters.wording import shown

__all__ = ["parse_lora_option", "parse_prompt"]

_WEIGHT = re.compile(rf"{NUMBER}|[+-]?(?:nan|inf|infinity)|", re.IGNORECASE | re.ASCII)


def parse_prompt(text: str) -> tuple[str, list[Any]]:
    """Take the tags out of a prompt, such as `<lora:ink:0.8>`.

    The module `lorablend.adapters.blends.tags` documents the syntax.

    Args:
        text: The prompt.

    Returns:
        The prompt without the tags, and the tags as entries for `resolve_blend`. A plain tag becomes (name, weight),
            with weight 1 if it has none. The names are looked up in the adapter folder only.

    Raises:
        BlendError: A tag is malformed, or names a path.
    """
    entries: list[Any] = []
    parts: list[str] = []
    end = 0
    for tag in TAG_START.finditer(text):
        entries.append(read_tag(tag, from_prompt=True))
        parts.append(text[end : tag.start()])
        end = tag.end()
    if not entries:
        return text, []
    rest = parts[0]
    for part in (*parts[1:], text[end:]):  # leave one space, not two, where a tag was between two
        rest += part[1:] if rest.endswith(" ") and part.startswith(" ") else part
    return rest.strip(), entries


def parse_lora_option(text: str) -> Any:
    """Read an option such as "FILE", "FILE:WEIGHT" or one tag, "<lora:FILE:0.8:lbw=OUTALL>".

    Args:
        text: The option. The text after the last colon is the weight if it is a number, so Windows drives and colons
            in names are allowed.

    Returns:
        An entry for `resolve_blend`.

    Raises:
        BlendError: The name is empty, the weight is empty, NaN or infinite, or the tag is malformed.
    """
    whole = shown(text)
    if text.lstrip().startswith("<"):
        entries = read_tags(text)
        if len(entries) != 1:
            raise BlendError(f'"{whole}": {len(entries)} tags; write one for each option')
        return entries[0]
    name, colon, weight = text.rpartition(":")
    weight = weight.strip()
    if not colon or not _WEIGHT.fullmatch(weight):
        name, weight = text, "1"
    if not name.strip():
        raise BlendError(f'"{whole}": no file; write FILE or FILE:WEIGHT')
    return name.strip(), to_number(weight, f'"{whole}": weight')

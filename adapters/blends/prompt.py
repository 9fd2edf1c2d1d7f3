"""Adapters that are named in a prompt, as `<lora:name:0.8>` like in AUTOMATIC1111's web UI, or on the command line."""

import re
from typing import Any

from lorablend.adapters.blends.tags import TAG_START, read_tag, read_tags
from lorablend.adapters.errors import BlendError
from lorablend.adapters.forms import NUMBER, to_number
from lorablend.adapters.wording import shown

__all__ = ["parse_lora_option", "parse_prompt", "split_prompt"]

_FIRST_WORD = re.compile(r"<\s*[^\s,]*")
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
    rest, entries, errors = split_prompt(text)
    if errors:
        raise errors[0]
    return rest, entries


def split_prompt(text: str) -> tuple[str, list[Any], list[BlendError]]:
    """Take the tags out of a prompt that another program used, where one bad tag must not cost the others.

    Args:
        text: The prompt.

    Returns:
        The prompt without any tag; the tags as `parse_prompt` returns them; and an error for each tag that cannot be
            read. Of a tag without a closing bracket, only the first word is taken out.
    """
    entries: list[Any] = []
    errors: list[BlendError] = []
    parts: list[str] = []
    end = 0
    for tag in TAG_START.finditer(text):
        if tag.start() < end:
            continue
        parts.append(text[end : tag.start()])
        end = tag.end()
        try:
            entries.append(read_tag(tag, from_prompt=True))
        except BlendError as error:
            errors.append(error)
            if not tag["end"]:
                end = tag.start() + len(_FIRST_WORD.match(tag.group())[0])  # pyright: ignore[reportOptionalSubscript]
    if not parts:
        return text, [], []
    rest = parts[0]
    for part in (*parts[1:], text[end:]):  # leave one space, not two, where a tag was between two
        rest += part[1:] if rest.endswith(" ") and part.startswith(" ") else part
    return rest.strip(), entries, errors


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

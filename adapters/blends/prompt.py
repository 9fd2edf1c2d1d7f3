"""Adapters named in a prompt, `<lora:name:0.8>` as AUTOMATIC1111's web UI writes it, and on the command line."""

import re
from typing import Any

from lorablend.adapters.blends.tags import TAG_START, read_tag, read_tags
from lorablend.adapters.errors import BlendError
from lorablend.adapters.forms import NUMBER, to_number
from lorablend.adapters.wording import shown

__all__ = ["parse_lora_option", "parse_prompt"]

_WEIGHT = re.compile(rf"{NUMBER}|[+-]?(?:nan|inf|infinity)|", re.IGNORECASE | re.ASCII)


def parse_prompt(text: str) -> tuple[str, list[Any]]:
    """Take the tags out of a prompt: (the text without them, what they say as entries for `resolve_blend`).

    A plain tag gives (name, weight), weight 1 if there is none. A name is looked up in the folder of adapters only;
    `lorablend.adapters.blends.tags` has the syntax. Raises BlendError for a tag that is malformed, or names a path.
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
    for part in (*parts[1:], text[end:]):  # one space, not two, where a tag stood between two
        rest += part[1:] if rest.endswith(" ") and part.startswith(" ") else part
    return rest.strip(), entries


def parse_lora_option(text: str) -> Any:
    """Read "FILE", "FILE:WEIGHT" or one whole tag, "<lora:FILE:0.8:lbw=OUTALL>", as an entry for `resolve_blend`.

    What follows the last colon is the weight if it is a number, so a Windows drive or a colon in a name does no harm.
    Raises BlendError for an empty name, a weight that is empty, NaN or infinite, and a malformed tag.
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

"""Captions in which signs say how their tags may be shuffled, and which wildcards they have, as in kohya's data sets.

The signs are taken out when a data set is read, so that nothing ever trains on them.
"""

from __future__ import annotations

import itertools
import re

from lorablend.train.chance import shuffled

__all__ = ["FIXED", "OrderedCaption", "expanded", "ordered", "tags_of"]

FIXED = "|||"  # kohya's usual keep_tokens_separator, which our own caption files may have too
_CHOICE = re.compile(r"\{([^{}]+)\}")
_MOST_BRACKETS = 200  # for each, the whole caption is read again
_ESCAPES = (("{{", "\ue000"), ("}}", "\ue001"))  # private use characters, which stand in for escaped braces


class OrderedCaption(str):
    """A caption whose tags are not all shuffled alike; as text it is the plain caption.

    Attributes:
        first: Tags that stay in front.
        moving: Tags, or groups of tags, that may be shuffled.
        last: Tags that stay at the end.
    """

    __slots__ = ("first", "last", "moving")
    first: tuple[str, ...]
    moving: tuple[str, ...]
    last: tuple[str, ...]

    def __new__(cls, first: tuple[str, ...], moving: tuple[str, ...], last: tuple[str, ...]) -> OrderedCaption:
        caption = super().__new__(cls, ", ".join((*first, *moving, *last)))
        caption.first, caption.moving, caption.last = first, moving, last
        return caption

    def __reduce__(self) -> tuple[type[OrderedCaption], tuple[tuple[str, ...], ...]]:
        return OrderedCaption, (self.first, self.moving, self.last)

    def shuffled(self, keep_tokens: int, seed: int, draw: int) -> str:
        """Shuffle what may move; `keep_tokens` tags stay in front only if no sign says how many."""
        kept = 0 if self.first or self.last else max(0, keep_tokens)
        moving = shuffled(list(self.moving[kept:]), seed, "tags", str(self), draw)
        return ", ".join((*self.first, *self.moving[:kept], *moving, *self.last))

    def with_signs(self) -> str:
        """Return the text for a caption file, where `|||` keeps tags in their place."""
        if not self.first and not self.last:
            return str(self)
        parts = (self.first, self.moving, self.last) if self.last else (self.first, self.moving)
        return f" {FIXED} ".join(map(", ".join, parts))


def tags_of(text: str) -> list[str]:
    """Split a caption at its commas."""
    return [tag for tag in (part.strip() for part in text.split(",")) if tag]


def ordered(caption: str, keep: str, group: str) -> str:
    """Take kohya's signs out of a caption: `keep_tokens_separator` and `secondary_separator`, "" for none.

    What is before the first `keep` stays in front, and what is after a second one at the end. `group` joins tags that
    stay next to each other.
    """
    if not (keep and keep in caption) and not (group and group in caption):
        return caption
    parts = [*(caption.split(keep, 2) if keep else [caption])]
    if len(parts) == 1:
        parts = ["", *parts]
    first, moving, last = (_groups(part, group) for part in (*parts, "")[:3])
    return OrderedCaption(first, moving, last)


def _groups(text: str, group: str) -> tuple[str, ...]:
    joined = [", ".join(tags_of(tag.replace(group, ","))) if group else tag for tag in tags_of(text)]
    return tuple(tag for tag in joined if tag)


def expanded(caption: str, most: int) -> tuple[str, ...]:
    """Return a caption with every choice of its wildcards {a|b}, as kohya's `enable_wildcard` reads them.

    A caption with more than `most` forms, or with hundreds of brackets, keeps its wildcards, which training then
    chooses from.
    """
    if caption.count("{") > _MOST_BRACKETS:
        return (caption,)
    text = caption
    for escape, character in _ESCAPES:
        text = text.replace(escape, character)
    forms = [text]
    while any(_CHOICE.search(form) for form in forms):  # the innermost first
        chosen: list[list[str]] = []
        for form in forms:
            match = _CHOICE.search(form)
            options = match[1].split("|") if match else []
            chosen.append(
                [form[: match.start()] + o.strip() + form[match.end() :] for o in options] if match else [form]
            )
        forms = list(dict.fromkeys(itertools.chain.from_iterable(chosen)))
        if len(forms) > most:
            return (caption,)
    for escape, character in _ESCAPES:
        forms = [form.replace(character, escape) for form in forms]
    return tuple(" ".join(form.split()) for form in forms)


def _chosen(text: str) -> list[str]:
    """Return the text with each choice of its first wildcard."""
    match = _CHOICE.search(text)
    if match is None:
        return [text]
    return [text[: match.start()] + option.strip() + text[match.end() :] for option in match[1].split("|")]

"""Captions: read from text files, with trigger word, wildcards and shuffled tags.

Everything is a pure function of the text and the seed, so that every text of a training is known in advance and its
embedding is computed once.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorablend.train.chance import chance, shuffled
from lorablend.train.data.tag_order import FIXED, OrderedCaption, tags_of

if TYPE_CHECKING:
    from lorablend.train.config import TrainConfig
    from lorablend.train.data.examples import Example

__all__ = [
    "VARIANTS",
    "caption_variants",
    "has_word",
    "join_captions",
    "lines_of",
    "needs_trigger",
    "read_captions",
    "training_texts",
    "with_trigger",
    "words_of_name",
]

VARIANTS = 16  # of one caption, at most, if anything in it is random
_TRIGGER = re.compile(r"\[trigger\]", re.IGNORECASE)  # ai-toolkit's placeholder
_WILDCARD = re.compile(r"\{([^{}]*\|[^{}]*)\}")
_DEEPEST = 100  # wildcards in one another; what is deeper stays as it is, for the whole text is read each time
_BRACES = str.maketrans({"\ue000": "{", "\ue001": "}"})  # private use characters, which stand in for escaped braces
# Words in the names that cameras, phones and programs give to pictures; they describe nothing.
_NO_WORDS = frozenset(
    """img image images dsc dscn dscf pxl photo photos pic pics picture pictures screenshot screen shot whatsapp
    untitled download file files scan frame frames render comfyui unsplash pexels pixabay copy final edited crop
    cropped data dataset datasets train training val test input inputs output outputs source sources raw""".split()  # noqa: SIM905
)


def read_captions(text: str) -> tuple[str, ...]:
    """Split a text file into captions: each line that is not empty is an alternative, as in SimpleTuner."""
    return tuple(dict.fromkeys(line for line in (" ".join(line.split()) for line in text.splitlines()) if line))


def join_captions(*parts: str) -> str:
    """Join the parts that are not empty to one list of tags."""
    return ", ".join(part.strip().strip(",").strip() for part in parts if part.strip().strip(",").strip())


def words_of_name(name: str) -> str:
    """The caption in the name of a file or folder: its words, without numbers at either end; "" if there is none.

    "a_small-red boat (2)" gives "a small-red boat"; "IMG_2034", "DSC0001" and hexadecimal names give "".
    """
    words = re.sub(r"\(\d+\)", " ", name).replace("_", " ").split()
    while words and not re.search(r"[^\W\d_]", words[-1]):
        words.pop()
    while words and not re.search(r"[^\W\d_]", words[0]):
        words.pop(0)
    if len(words) == 1:  # then dashes may be what separates the words
        words = re.sub(r"-+", " ", words[0]).split()
        while words and words[-1].isdigit():
            words.pop()
    plain = [re.sub(r"[\d\W]+", "", word).lower() for word in words]
    if not any(len(word) > 1 for word in plain) or any(word in _NO_WORDS for word in plain):
        return ""
    letters = sum(len(word) for word in plain)
    return " ".join(words) if letters >= 0.7 * sum(len(word) for word in words) else ""


def has_word(caption: str, word: str) -> bool:
    """Whether the caption contains the word, or the sequence of words, in upper or lower case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", caption, re.IGNORECASE) is not None


def with_trigger(caption: str, trigger: str | None) -> str:
    """Replace `[trigger]`; if the caption still lacks the trigger, put it in front."""
    if trigger is None:
        return caption
    caption = _TRIGGER.sub(lambda _: trigger, caption)
    return caption if has_word(caption, trigger) else join_captions(trigger, caption)


def lines_of(example: Example) -> list[str]:
    """List the lines of a caption file: with the trigger, and with the signs that keep tags in their places."""
    texts = [each.with_signs() if isinstance(each, OrderedCaption) else each for each in example.captions or ("",)]
    return [with_trigger(text, example.trigger) for text in texts]


def needs_trigger(caption: str) -> bool:
    """Whether the caption contains `[trigger]`."""
    return _TRIGGER.search(caption) is not None


def caption_variants(
    captions: Sequence[str], trigger: str | None, *, shuffle: bool, keep_tokens: int, seed: int
) -> tuple[str, ...]:
    """List every text that training uses for a picture with these alternatives; at least one.

    `{a|b}` becomes a or b; `{{` and `}}` become braces. A caption with anything random in it has up to 16 forms, which
    depend on the seed alone.

    Args:
        shuffle: Shuffle the tags, which commas separate, except the first `keep_tokens` and those before a `|||` or
            after a second one.
    """
    texts: dict[str, None] = {}
    for caption in captions or ("",):
        forms: dict[str, None] = {}
        for draw in range(2 * VARIANTS):  # some are alike
            known = isinstance(caption, OrderedCaption)
            text = caption.shuffled(keep_tokens, seed, draw) if known and shuffle else str(caption)
            text = _one_of_each(_TRIGGER.sub(lambda _: trigger or "[trigger]", text), seed, draw)
            text = text if known else _ordered(text, shuffle, keep_tokens, seed, draw)
            forms[with_trigger(text, trigger)] = None
            if len(forms) == VARIANTS:
                break
        texts |= forms
    return tuple(texts)


def training_texts(example: Example, config: TrainConfig) -> tuple[str, ...]:
    """List every text that this training uses for a picture."""
    return caption_variants(
        example.captions,
        example.trigger,
        shuffle=config.shuffle_tags,
        keep_tokens=config.keep_tokens,
        seed=config.seed,
    )


def _one_of_each(caption: str, seed: int, draw: int) -> str:
    text = caption.replace("{{", "\ue000").replace("}}", "\ue001")
    places = itertools.count()

    def choose(match: re.Match[str]) -> str:
        options = match[1].split("|")
        return options[int(chance(seed, "wildcard", caption, draw, next(places)) * len(options))].strip()

    for _ in range(_DEEPEST):  # the innermost first
        text, replaced = _WILDCARD.subn(choose, text)
        if not replaced:
            break
    return text.translate(_BRACES)


def _ordered(caption: str, shuffle: bool, keep_tokens: int, seed: int, draw: int) -> str:
    parts = caption.split(FIXED)
    if len(parts) == 1 and not shuffle:
        return caption
    first, moving, last = ([""] if len(parts) == 1 else []) + parts[:2] + [FIXED.join(parts[2:])]
    tags = tags_of(moving)
    kept = max(0, keep_tokens) if len(parts) == 1 else 0
    if shuffle:
        tags = tags[:kept] + shuffled(tags[kept:], seed, "tags", caption, draw)
    return ", ".join([*tags_of(first), *tags, *tags_of(last)])

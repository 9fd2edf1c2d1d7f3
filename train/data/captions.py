"""Captions: what a text file says, the trigger word in its place, wildcards, tags in an order of chance.

All here is a pure function of the text and the seed, so that every text of a whole training is known beforehand and
its embedding can be computed once.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorablend.train.chance import chance, shuffled

if TYPE_CHECKING:
    from lorablend.train.config import TrainConfig
    from lorablend.train.data.examples import Example

__all__ = [
    "caption_variants",
    "has_word",
    "join_captions",
    "needs_trigger",
    "read_captions",
    "training_texts",
    "with_trigger",
    "words_of_name",
]

VARIANTS = 16  # of one caption at most, where chance decides
_TRIGGER = re.compile(r"\[trigger\]", re.IGNORECASE)  # ai-toolkit's placeholder
_WILDCARD = re.compile(r"\{([^{}]*\|[^{}]*)\}")
_FIXED = "|||"  # kohya's keep_tokens_separator
_BRACES = str.maketrans({"\ue000": "{", "\ue001": "}"})  # private use: stand for escaped braces meanwhile
# What cameras, phones and programs call their pictures; such words caption nothing.
_NO_WORDS = frozenset(
    """img image images dsc dscn dscf pxl photo photos pic pics picture pictures screenshot screen shot whatsapp
    untitled download file files scan frame frames render comfyui unsplash pexels pixabay copy final edited crop
    cropped data dataset datasets train training val test input inputs output outputs source sources raw""".split()  # noqa: SIM905
)


def read_captions(text: str) -> tuple[str, ...]:
    """The captions of a text file: each line that is not empty is an alternative, as SimpleTuner has it."""
    return tuple(dict.fromkeys(line for line in (" ".join(line.split()) for line in text.splitlines()) if line))


def join_captions(*parts: str) -> str:
    """Parts that say something, as one list of tags."""
    return ", ".join(part.strip().strip(",").strip() for part in parts if part.strip().strip(",").strip())


def words_of_name(name: str) -> str:
    """The caption in the name of a file or folder: its words, without numbers at either end; "" if it says nothing.

    "a_small-red boat (2)" is "a small-red boat"; "IMG_2034", "DSC0001" and hexadecimal names are nothing.
    """
    words = re.sub(r"\(\d+\)", " ", name).replace("_", " ").split()
    while words and not re.search(r"[^\W\d_]", words[-1]):
        words.pop()
    while words and not re.search(r"[^\W\d_]", words[0]):
        words.pop(0)
    if len(words) == 1:  # dashes join words too, where nothing else does
        words = re.sub(r"-+", " ", words[0]).split()
        while words and words[-1].isdigit():
            words.pop()
    plain = [re.sub(r"[\d\W]+", "", word).lower() for word in words]
    if not any(len(word) > 1 for word in plain) or any(word in _NO_WORDS for word in plain):
        return ""
    letters = sum(len(word) for word in plain)
    return " ".join(words) if letters >= 0.7 * sum(len(word) for word in words) else ""


def has_word(caption: str, word: str) -> bool:
    """Whether the word, or the words, stand in the caption, in any case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", caption, re.IGNORECASE) is not None


def with_trigger(caption: str, trigger: str | None) -> str:
    """`[trigger]` replaced; else the trigger put first where the caption lacks it."""
    if trigger is None:
        return caption
    caption = _TRIGGER.sub(lambda _: trigger, caption)
    return caption if has_word(caption, trigger) else join_captions(trigger, caption)


def needs_trigger(caption: str) -> bool:
    """Whether `[trigger]` stands in it."""
    return _TRIGGER.search(caption) is not None


def caption_variants(
    captions: Sequence[str], trigger: str | None, *, shuffle: bool, keep_tokens: int, seed: int
) -> tuple[str, ...]:
    """Every text that training uses for a picture with these alternatives, at least one; the same for the same seed.

    `{a|b}` becomes a or b, `{{` and `}}` are braces. shuffle: tags between commas change places, except the first
    `keep_tokens` and those before a `|||`, or after a second one. A caption that chance decides on has up to 16 forms.
    """
    texts: dict[str, None] = {}
    for caption in captions or ("",):
        forms: dict[str, None] = {}
        for draw in range(2 * VARIANTS):  # some are alike
            text = _one_of_each(_TRIGGER.sub(lambda _: trigger or "[trigger]", caption), seed, draw)
            forms[with_trigger(_ordered(text, shuffle, keep_tokens, seed, draw), trigger)] = None
            if len(forms) == VARIANTS:
                break
        texts |= forms
    return tuple(texts)


def training_texts(example: Example, config: TrainConfig) -> tuple[str, ...]:
    """`caption_variants` of a picture, as this training orders and shuffles its tags."""
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

    replaced = 1
    while replaced:  # the innermost first
        text, replaced = _WILDCARD.subn(choose, text)
    return text.translate(_BRACES)


def _ordered(caption: str, shuffle: bool, keep_tokens: int, seed: int, draw: int) -> str:
    parts = caption.split(_FIXED)
    if len(parts) == 1 and not shuffle:
        return caption
    first, moving, last = ([""] if len(parts) == 1 else []) + parts[:2] + [_FIXED.join(parts[2:])]
    tags = _tags(moving)
    kept = max(0, keep_tokens) if len(parts) == 1 else 0
    if shuffle:
        tags = tags[:kept] + shuffled(tags[kept:], seed, "tags", caption, draw)
    return ", ".join([*_tags(first), *tags, *_tags(last)])


def _tags(text: str) -> list[str]:
    return [tag for tag in (part.strip() for part in text.split(",")) if tag]

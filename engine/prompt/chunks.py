"""Long prompts: tokens in chunks that a text encoder can take, each with its own start and end.

    a1111   A chunk is full with its last token, but a cut goes back to a comma that is close before it.
    comfy   A part of less than eight tokens that does not fit begins a new chunk; a longer one is cut.

From A1111 1.10 (modules/sd_hijack_clip.py, tokenize_line) and ComfyUI 0.3 (comfy/sd1_clip.py, tokenize_with_weights).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Chunk", "Group", "Token", "make_chunks"]

_BACK_TO_A_COMMA = 20  # tokens; A1111's comma_padding_backtrack
_LONG = 8  # tokens; ComfyUI's max_word_length


@dataclass(frozen=True)
class Token:
    """One place of a text encoder's input: a token of the vocabulary, or a vector in its place.

    Attributes:
        number: The token.
        weight: How strongly it acts.
        vector: f32 [width], of a textual inversion.
    """

    number: int
    weight: float = 1.0
    vector: np.ndarray | None = None


Group = list[Token]
"""The tokens of a part between names of textual inversions, or all vectors of one of them."""
Chunk = list[Token]


def make_chunks(sections: Sequence[Sequence[Group]], length: int, comma: int, rule: str) -> list[Chunk]:
    """Divide a prompt.

    Args:
        sections: The groups of each section; a section begins a new chunk.
        length: The most tokens of a chunk, without start and end.
        comma: The token of a comma.
        rule: A name of `RULES`.

    Returns:
        At least one chunk, which may be empty.
    """
    divide = _a1111 if rule == "a1111" else _comfy
    chunks = [chunk for section in sections for chunk in divide(section, length, comma)]
    return chunks[:-1] if len(chunks) > 1 and not chunks[-1] else chunks  # nothing behind a BREAK


def _a1111(groups: Sequence[Group], length: int, comma: int) -> list[Chunk]:
    chunks: list[Chunk] = [[]]
    last_comma: int | None = None
    for group in groups:
        if group and group[0].vector is not None:  # not divided
            if len(chunks[-1]) + len(group) > length:
                chunks.append([])
                last_comma = None
            chunks[-1:] = [
                chunks[-1] + group[:length],
                *(group[i : i + length] for i in range(length, len(group), length)),
            ]
            continue
        for token in group:
            full = len(chunks[-1]) == length
            if token.number == comma:
                last_comma = len(chunks[-1])
            elif full and last_comma is not None and length - last_comma <= _BACK_TO_A_COMMA:
                moved = chunks[-1][last_comma + 1 :]
                chunks[-1] = chunks[-1][: last_comma + 1]
                chunks.append(moved)
                last_comma = None
                full = False
            if full:
                chunks.append([])
                last_comma = None
            chunks[-1].append(token)
    return chunks


def _comfy(groups: Sequence[Group], length: int, _comma: int) -> list[Chunk]:
    chunks: list[Chunk] = [[]]
    for group in groups:
        rest = group
        while len(chunks[-1]) + len(rest) > length:
            if len(group) >= _LONG:
                room = length - len(chunks[-1])
                chunks[-1] = chunks[-1] + rest[:room]
                rest = rest[room:]
            chunks.append([])
        chunks[-1] = chunks[-1] + rest
    return chunks

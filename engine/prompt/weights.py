r"""Weights of words in a prompt, as AUTOMATIC1111's web UI and ComfyUI read them.

    rule a1111                              rule comfy
    (a)      weight × 1.1                   (a)      weight × 1.1
    (a:1.3)  weight × 1.3                   (a:1.3)  weight 1.3, whatever is around it
    [a]      weight ÷ 1.1                   [a]      plain text
    \( \) \[ \] \\   the sign itself        \( \)    the sign itself
    BREAK    the rest is encoded apart      BREAK    plain text

Brackets may stand in each other. Under a1111, a bracket that is never closed reaches to the end; one that was never
opened is plain text. The rules are those of A1111 1.10 (modules/prompt_parser.py, parse_prompt_attention) and ComfyUI
0.3 (comfy/sd1_clip.py, token_weights), but for BREAK inside brackets, which A1111 weights like a word.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["RULES", "Part", "is_same_in_all_rules", "read_weights"]

RULES = {"a1111": "AUTOMATIC1111", "comfy": "ComfyUI"}
"""Name -> label."""

_SHORT = 60  # bytes, which are less than 75 tokens
_MORE = 1.1  # a bracket without a number
_DEEPEST = 64  # brackets in each other under comfy; what is deeper is plain text
_SIGNS = re.compile(
    r"\\(?P<plain>[()\[\]\\])|(?P<open>[(\[])|:\s*(?P<weight>[+-]?[.\d]+)\s*\)|(?P<close>[)\]])|(?P<text>[^\\()\[\]:]+|.)",
    re.DOTALL,
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


@dataclass(frozen=True)
class Part:
    """A piece of a prompt whose words have one weight."""

    text: str
    weight: float = 1.0


def read_weights(prompt: str, rule: str) -> list[list[Part]]:
    """The parts of a prompt, in sections: each but the first follows a BREAK. A section has at least one part."""
    return [_merged(section) for section in (_a1111(prompt) if rule == "a1111" else [list(_comfy(prompt, 1.0))])]


def is_same_in_all_rules(prompt: str) -> bool:
    """Whether a prompt means the same whatever the rule: it has no weights, and fits into one chunk for sure."""
    first, *others = (read_weights(prompt, rule) for rule in RULES)
    is_plain = len(first) == len(first[0]) == 1 and first[0][0].weight == 1
    return is_plain and all(other == first for other in others) and len(prompt.encode()) <= _SHORT


def _merged(section: list[Part]) -> list[Part]:
    """Neighbours of one weight become one part, so that their words are tokenized together."""
    parts: list[Part] = []
    for part in section:
        if parts and parts[-1].weight == part.weight:
            parts[-1] = Part(parts[-1].text + part.text, part.weight)
        elif part.text:
            parts.append(part)
    return parts or [Part("")]


def _a1111(prompt: str) -> list[list[Part]]:
    pieces: list[str | None] = []  # None is a BREAK
    factors: list[tuple[int, int, float]] = []  # of the pieces from one place to another
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        factors.append((start, len(pieces), factor))

    for sign in _SIGNS.finditer(prompt):
        weight = _number(sign["weight"])
        if sign["open"]:
            opened[sign["open"]].append(len(pieces))
        elif weight is not None and opened["("]:
            multiply(opened["("].pop(), weight)
        elif sign["close"] == ")" and opened["("]:
            multiply(opened["("].pop(), _MORE)
        elif sign["close"] == "]" and opened["["]:
            multiply(opened["["].pop(), 1 / _MORE)
        elif sign["plain"]:
            pieces.append(sign["plain"])
        else:
            first, *others = _BREAK.split(sign[0])
            pieces.append(first)
            for text in others:
                pieces += [None, text]
    for bracket, factor in (("(", _MORE), ("[", 1 / _MORE)):
        for start in opened[bracket]:
            multiply(start, factor)

    weights = np.ones(len(pieces))
    for start, stop, factor in factors:
        weights[start:stop] *= factor
    sections: list[list[Part]] = [[]]
    for text, weight in zip(pieces, weights.tolist(), strict=True):
        if text is None:
            sections.append([])
        else:
            sections[-1].append(Part(text, weight))
    return sections


def _number(text: str | None) -> float | None:
    try:
        number = math.nan if text is None else float(text)
    except ValueError:  # 1.2.3
        return None
    return number if math.isfinite(number) else None


def _comfy(text: str, weight: float, depth: int = 0) -> Iterator[Part]:
    for group in _groups(text):
        if len(group) < 2 or not (group.startswith("(") and group.endswith(")")) or depth == _DEEPEST:
            yield Part(re.sub(r"\\([()])", r"\1", group), weight)
            continue
        inner, colon, number = group[1:-1].rpartition(":")
        given = _number(number.strip()) if colon and inner else None
        within, own = (group[1:-1], weight * _MORE) if given is None else (inner, given)
        yield from _comfy(within, own, depth + 1)


def _groups(text: str) -> Iterator[str]:
    """Pieces outside of all brackets, and the outermost brackets with what is in them."""
    piece, depth = "", 0
    for sign in re.findall(r"\\[()]|.", text, re.DOTALL):
        if sign == "(" and depth == 0 and piece:
            yield piece
            piece = ""
        depth += (sign == "(") - (sign == ")")
        piece += sign
        if sign == ")" and depth == 0:
            yield piece
            piece = ""
    if piece:
        yield piece

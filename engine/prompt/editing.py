r"""Prompts that change from step to step, as in AUTOMATIC1111's web UI.

    [from:to:when]   "from" until the step, then "to"      [to:when]   nothing, then "to"
    [from::when]     "from", then nothing                  [a|b|c]     one after the other, a step each

`when` is a number of steps, or with a point in it, a fraction of all. All of it may stand inside other brackets. From
A1111 1.10 (modules/prompt_parser.py, get_learned_conditioning_prompt_schedules).
"""

import re
from collections.abc import Callable

__all__ = ["texts_by_step"]

_NUMBER = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)\s*")
_DEEPEST = 32  # brackets in each other; what is deeper is plain text


def texts_by_step(prompt: str, steps: int) -> list[str]:
    """The prompt of each step."""
    text_at = _compiled(prompt, steps, 0)
    return [text_at(step) for step in range(steps)]


def _compiled(text: str, steps: int, depth: int) -> Callable[[int], str]:
    """From a step, counted from 0, to its text."""
    parts: list[Callable[[int], str]] = []
    plain = start = 0
    ends = _closing_brackets(text) if depth < _DEEPEST else {}
    while start < len(text):
        end = ends.get(start)
        if end is None:
            start += 1
            continue
        parts.append(_constant(text[plain:start]))
        parts.append(_bracket(text[start + 1 : end], steps, depth + 1))
        plain = start = end + 1
    parts.append(_constant(text[plain:]))
    return lambda step: "".join(part(step) for part in parts)


def _bracket(text: str, steps: int, depth: int) -> Callable[[int], str]:
    """What stands for a bracket with this text in it."""
    pieces = _divided(text, ":")
    if len(pieces) in (2, 3) and _NUMBER.fullmatch(pieces[-1]):
        *before, after = (_compiled(piece, steps, depth) for piece in pieces[:-1])
        first = before[0] if before else _constant("")
        when = float(pieces[-1]) * (steps if "." in pieces[-1] else 1)
        return lambda step: first(step) if step < int(when) else after(step)
    choices = _divided(text, "|")
    if len(pieces) == 1 and len(choices) > 1:
        turns = [_compiled(choice, steps, depth) for choice in choices]
        return lambda step: turns[step % len(turns)](step)
    inner = _compiled(text, steps, depth)
    return lambda step: f"[{inner(step)}]"  # a weight


def _constant(text: str) -> Callable[[int], str]:
    return lambda _step: text


def _closing_brackets(text: str) -> dict[int, int]:
    """The place of each "[" that is closed, and where."""
    opened: list[int] = []
    ends: dict[int, int] = {}
    for sign in re.finditer(r"\\.|[\[\]]", text, re.DOTALL):
        if sign[0] == "[":
            opened.append(sign.start())
        elif sign[0] == "]" and opened:
            ends[opened.pop()] = sign.start()
    return ends


def _divided(text: str, separator: str) -> list[str]:
    """The text at each separator that is in no further bracket."""
    pieces, depth, start = [], 0, 0
    for sign in re.finditer(r"\\.|[\[\]():|]", text, re.DOTALL):
        depth = max(0, depth + (sign[0] in "[(") - (sign[0] in "])"))
        if sign[0] == separator and depth == 0:
            pieces.append(text[start : sign.start()])
            start = sign.end()
    return [*pieces, text[start:]]

"""Numbers and words that users write: read with clear error messages, and written so that they read back the same."""

import difflib
import math
import re
from collections.abc import Iterable
from numbers import Real

from lorablend.adapters.errors import BlendError
from lorablend.adapters.wording import shown

__all__ = ["NUMBER", "did_you_mean", "finite", "refuse_unknown", "to_number", "whole_number", "write_number"]

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(NUMBER, re.ASCII)


def finite(value: object, what: str) -> float:
    """Return `value` as a float. Raises BlendError, whose message begins with `what`, unless it is a finite number."""
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer beyond the range of floats
        number = math.nan
    if not math.isfinite(number):
        raise BlendError(f"{what} {shown(value)} is not a finite number")
    return number


def to_number(text: str, what: str) -> float:
    """Parse a finite number. Raises BlendError, whose message begins with `what`."""
    number = float(text) if _NUMBER.fullmatch(text.strip()) else math.nan
    if not math.isfinite(number):
        raise BlendError(f'{what} "{shown(text)}" is not a finite number')
    return number


def write_number(number: float) -> str:
    """Return the shortest text that reads back as the same number: 1, 0.8, -0.3333333333333333."""
    return repr(float(number)).removesuffix(".0")


def whole_number(text: str) -> int | None:
    """Parse an integer of at most nine digits; None for any other text."""
    return int(text) if len(text) <= 9 and text.isascii() and text.isdecimal() else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: the closest known word, or a list of all of them."""
    folded = {name.casefold(): name for name in known}
    if nearest := difflib.get_close_matches(word.casefold(), folded, n=1):
        return f'did you mean "{folded[nearest[0]]}"?'
    return f"choose from {', '.join(folded.values())}"


def refuse_unknown(keys: Iterable[object], known: Iterable[str]) -> None:
    """Raise BlendError for the first of `keys` that is not `known`."""
    names = list(known)
    for key in keys:
        if key not in names:
            raise BlendError(f'unknown key "{shown(key)}"; {did_you_mean(str(key), names)}')

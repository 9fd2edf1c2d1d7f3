"""PEFT's `alpha_pattern` and `rank_pattern`: regular expressions for the end of a module path, after a dot.

The first pattern that matches wins.

Nearly all of them are plain names (a file that diffusers saved may have hundreds), which are looked up in a table. Of
the others, only a few short and harmless expressions are run: the file is untrusted, and a single expression can keep
the matcher busy for years.
"""

import re
from collections.abc import Iterator, Mapping

from lorablend.adapters.errors import AdapterError
from lorablend.adapters.wording import shown

__all__ = ["Patterns"]

_LITERAL = re.compile(r"\^?[\w.\-]+\$?", re.ASCII)
_HARMLESS = re.compile(r"\^?(?:[\w.\-]|\\\.|\\d[+*]?|\[0-9\][+*]?|\.[+*]|\((?:\?:)?[\w.\-|]+\))+\$?", re.ASCII)
_CHOICE = re.compile(r"(?<!\\)\.[+*]|\(")  # makes the matcher backtrack
_LONGEST, _MOST_CHOICES, _MOST = 200, 3, 32  # characters and choices in an expression; expressions in a file


class Patterns:
    """Numbers by pattern. `source`, for messages, is where they come from.

    Raises AdapterError for a pattern that is not harmless.
    """

    def __init__(self, source: str, patterns: Mapping[str, float]) -> None:
        self._literals: dict[str, tuple[int, float]] = {}  # (order, number); names for whole paths keep their ^
        self._expressions: list[tuple[int, float, re.Pattern[str]]] = []
        for order, (pattern, number) in enumerate(patterns.items()):
            if _LITERAL.fullmatch(literal := pattern.replace("\\.", ".")):
                self._literals.setdefault(literal.removesuffix("$"), (order, number))
            elif len(self._expressions) < _MOST and _is_harmless(pattern):
                self._expressions.append((order, number, re.compile(pattern)))
            else:
                raise AdapterError(f"{source} {shown(pattern)} is too complicated; use the modules' names")

    def find(self, path: str) -> float | None:
        """Return the number of the first pattern that matches a module path, or None."""
        whole = (path, path.removeprefix("text_model."))  # either, depending on the version of transformers
        endings = tuple(_endings(path))
        names = (*(f"^{name}" for name in whole), *endings)
        matches = [self._literals[name] for name in names if name in self._literals]
        for order, number, expression in self._expressions:
            if any(expression.fullmatch(name) for name in (whole if expression.pattern.startswith("^") else endings)):
                matches.append((order, number))
        return min(matches)[1] if matches else None


def _is_harmless(pattern: str) -> bool:
    if len(pattern) > _LONGEST or not _HARMLESS.fullmatch(pattern):
        return False
    return len(_CHOICE.findall(pattern)) <= _MOST_CHOICES


def _endings(path: str) -> Iterator[str]:
    """Return "a.b.c", "b.c" and "c" for "a.b.c"."""
    words = path.split(".")
    return (".".join(words[index:]) for index in range(len(words)))

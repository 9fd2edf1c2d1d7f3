"""PEFT's `alpha_pattern` and `rank_pattern`: regular expressions for the end of a module path, after a dot.

The first that fits wins.

Nearly always they are plain names, hundreds of them in a file that diffusers saved: those are looked up. Of the rest
only a few short ones of a harmless kind are run: nobody vouches for the file, and one expression can keep the matcher
busy for years.
"""

import re
from collections.abc import Iterator, Mapping

from lorablend.adapters.errors import AdapterError
from lorablend.adapters.wording import shown

__all__ = ["Patterns"]

_LITERAL = re.compile(r"\^?[\w.\-]+\$?", re.ASCII)
_HARMLESS = re.compile(r"\^?(?:[\w.\-]|\\\.|\\d[+*]?|\[0-9\][+*]?|\.[+*]|\((?:\?:)?[\w.\-|]+\))+\$?", re.ASCII)
_CHOICE = re.compile(r"(?<!\\)\.[+*]|\(")  # what makes the matcher go back and try again
_LONGEST, _MOST_CHOICES, _MOST = 200, 3, 32  # characters and choices of one expression; expressions of one file


class Patterns:
    """Numbers by pattern. Raises AdapterError for a pattern that is not harmless; `source` says where it was read."""

    def __init__(self, source: str, patterns: Mapping[str, float]) -> None:
        self._literals: dict[str, tuple[int, float]] = {}  # (order, number); a leading ^ kept: the whole path
        self._expressions: list[tuple[int, float, re.Pattern[str]]] = []
        for order, (pattern, number) in enumerate(patterns.items()):
            if _LITERAL.fullmatch(literal := pattern.replace("\\.", ".")):
                self._literals.setdefault(literal.removesuffix("$"), (order, number))
            elif len(self._expressions) < _MOST and _is_harmless(pattern):
                self._expressions.append((order, number, re.compile(pattern)))
            else:
                raise AdapterError(f"{source} {shown(pattern)} is too complicated; use the modules' names")

    def find(self, path: str) -> float | None:
        """The number of the first pattern that fits a module path."""
        whole = (path, path.removeprefix("text_model."))  # transformers has both, by version
        endings = tuple(_endings(path))
        names = (*(f"^{name}" for name in whole), *endings)
        found = [self._literals[name] for name in names if name in self._literals]
        for order, number, expression in self._expressions:
            if any(expression.fullmatch(name) for name in (whole if expression.pattern.startswith("^") else endings)):
                found.append((order, number))
        return min(found)[1] if found else None


def _is_harmless(pattern: str) -> bool:
    if len(pattern) > _LONGEST or not _HARMLESS.fullmatch(pattern):
        return False
    return len(_CHOICE.findall(pattern)) <= _MOST_CHOICES


def _endings(path: str) -> Iterator[str]:
    """For "a.b.c": "a.b.c", "b.c", "c"."""
    words = path.split(".")
    return (".".join(words[index:]) for index in range(len(words)))

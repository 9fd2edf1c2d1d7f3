"""The JSON header of a safetensors file, read entry by entry.

`json.loads` of the whole header could take twenty bytes of memory for every byte, if the header is nothing but
brackets. Here each tensor's entry is cut out and its length is checked before it is parsed.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from lorablend.adapters.errors import AdapterError
from lorablend.adapters.wording import shown

__all__ = ["METADATA", "read_header"]

METADATA = "__metadata__"
_SPACE = re.compile(r"[ \t\n\r]*")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON escapes can spell them, but no valid text contains them
_LONGEST_ENTRY = 2000  # characters; the largest numbers in all dimensions take a third of it
_MOST_METADATA = 10_000  # kohya's trainer writes about a hundred


def read_header(text: str) -> Iterator[tuple[str, Any]]:
    """Yield every name with its value: a dict for a tensor's entry, a dict of text for "__metadata__".

    A value of any other kind is yielded as None, and ends the reading. Raises AdapterError for invalid JSON, for a name
    that appears twice, and for metadata that is not text.
    """
    header = _Reader(text)
    for name in header.members():
        if name == METADATA and header.skip("null"):  # the same as no metadata
            yield name, {}
        elif header.next() not in ("{", ""):
            yield name, None
            return
        else:
            yield name, _metadata(header) if name == METADATA else header.entry()
    header.end()


def _metadata(header: "_Reader") -> dict[str, str]:
    metadata: dict[str, str] = {}
    for key in header.members():
        if header.next() != '"':
            raise AdapterError(f"metadata {shown(key)} is not text")
        if len(metadata) == _MOST_METADATA:
            raise AdapterError(f"more than {_MOST_METADATA} entries of metadata, which no trainer writes")
        metadata[key] = header.string()
    return metadata


class _Reader:
    """A position in a JSON text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def next(self) -> str:
        """Skip spaces and return the next character without consuming it; "" at the end."""
        if self._text[self._at : self._at + 1].isspace() and (space := _SPACE.match(self._text, self._at)):
            self._at = space.end()
        return self._text[self._at : self._at + 1]

    def take(self, *expected: str) -> str:
        """Consume and return the next character, which must be one of these."""
        if (character := self.next()) not in expected:
            raise _not_json()
        self._at += 1
        return character

    def skip(self, word: str) -> bool:
        """Consume this word if it is next; return whether it was."""
        self.next()
        is_next = self._text.startswith(word, self._at)
        self._at += len(word) * is_next
        return is_next

    def members(self) -> Iterator[str]:
        """Yield the names in an object; the caller must read each value before taking the next name."""
        self.take("{")
        if self.next() == "}":
            self.take("}")
            return
        names: set[str] = set()
        while True:
            if (name := self.string()) in names:
                raise AdapterError(f"the header names {shown(name)} twice")
            names.add(name)
            self.take(":")
            yield name
            if self.take(",", "}") == "}":
                return

    def string(self) -> str:
        if self.next() != '"':
            raise _not_json()
        try:
            value, self._at = _STRING.raw_decode(self._text, self._at)
        except ValueError as error:
            raise _not_json() from error
        if _HALF_CHARACTER.search(value):
            raise _not_json()
        return value

    def entry(self) -> Any:
        """Read an object that contains no other objects."""
        end = self._text.find("}", self._at, self._at + _LONGEST_ENTRY) + 1
        try:
            value = _ENTRY.decode(self._text[self._at : end])
        except (ValueError, RecursionError) as error:
            raise _not_json() from error
        self._at = end
        return value

    def end(self) -> None:
        """Check that nothing but spaces follows."""
        if self.next():
            raise _not_json()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        raise ValueError("a key appears twice")
    return entry


_STRING = json.JSONDecoder()
_ENTRY = json.JSONDecoder(object_pairs_hook=_unique)


def _not_json() -> AdapterError:
    return AdapterError("not a safetensors file: the header is not valid JSON")

"""All adapters of a folder at one moment, found by their names without looking at each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path

from lorablend.app.files import SUFFIX
from lorablend.app.library.entry import Entry, name_of

__all__ = ["Catalogue"]


class Catalogue:
    """The entries, sorted by name.

    Args:
        entries: In any order.
        previews: The pictures next to the files, by the paths of the files.
    """

    def __init__(self, entries: Iterable[Entry], previews: Mapping[Path, Path]) -> None:
        self.previews = previews
        self.entries = sorted(entries, key=lambda entry: (entry.name.casefold(), entry.name))

    @cached_property
    def names(self) -> list[str]:
        return [entry.name for entry in self.entries]

    def named(self, name: str) -> Entry | None:
        """The adapter with this whole name, or with this file name if that is unique; else None."""
        whole, short = self._whole.get(name, []), self._short.get(name, [])
        return whole[0] if whole else short[0] if len(short) == 1 else None

    def matches(self, name: str) -> list[Entry]:
        """The adapters that a name means: several if it is ambiguous.

        The name is a path in the folder or a file name alone, with or without the suffix. An exact match goes before
        one in another letter case, and a whole path before a file name.
        """
        maps = (self._full, self._stems, self._folded_full, self._folded_stems)
        for wanted, entries in zip((name, name, name.casefold(), name.casefold()), maps, strict=True):
            if found := entries.get(wanted):
                return found
        return []

    def aliases(self) -> dict[str, str]:
        """All names that `matches` takes, by their form without letter case."""
        return {alias.casefold(): alias for entry in self.entries for alias in (*_file_names(entry), entry.name)}

    @cached_property
    def _whole(self) -> Mapping[str, list[Entry]]:
        return self._by(lambda entry: {entry.name})

    @cached_property
    def _short(self) -> Mapping[str, list[Entry]]:
        return self._by(lambda entry: {entry.path.stem})

    @cached_property
    def _full(self) -> Mapping[str, list[Entry]]:
        return self._by(_paths)

    @cached_property
    def _stems(self) -> Mapping[str, list[Entry]]:
        return self._by(_file_names)

    @cached_property
    def _folded_full(self) -> Mapping[str, list[Entry]]:
        return self._by(lambda entry: {name.casefold() for name in _paths(entry)})

    @cached_property
    def _folded_stems(self) -> Mapping[str, list[Entry]]:
        return self._by(lambda entry: {name.casefold() for name in _file_names(entry)})

    def _by(self, names: Callable[[Entry], Iterable[str]]) -> Mapping[str, list[Entry]]:
        entries: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            for name in names(entry):
                entries[name].append(entry)
        return entries


def _paths(entry: Entry) -> set[str]:
    return {entry.name, entry.name + SUFFIX}


def _file_names(entry: Entry) -> set[str]:
    return {entry.path.name, name_of(entry.path.name)}

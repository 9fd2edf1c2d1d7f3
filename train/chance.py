"""Random numbers as pure functions of a seed and a key: the same on every machine, in every run, after any resume."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

__all__ = ["chance", "shuffled"]

_T = TypeVar("_T")


def chance(seed: int, *what: int | str) -> float:
    """A number in [0, 1) for this seed and key; from BLAKE2b, so that no library's generator can change it."""
    digest = blake2b(repr((seed, *what)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def shuffled(items: Sequence[_T], seed: int, *what: int | str) -> list[_T]:
    """The items in a random order."""
    keys = [(chance(seed, *what, index), index) for index in range(len(items))]
    return [items[index] for _, index in sorted(keys)]

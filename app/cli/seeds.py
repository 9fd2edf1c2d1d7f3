"""Seeds for pictures that are drawn one after the other."""

import secrets

from lorablend.adapters.errors import RequestError

__all__ = ["MAX_COUNT", "seeds"]

MAX_COUNT = 10_000


def seeds(first: int | None, count: int) -> range:
    """`count` seeds from `first` on; None draws the first one by chance.

    `generate` gives the pictures of a batch the same seeds. Drawn one by one, they are the same pictures, and each can
    be saved before the next one is started.
    """
    if not 1 <= count <= MAX_COUNT:
        raise RequestError(f"count is {count}; give 1 to {MAX_COUNT}")
    start = secrets.randbelow(2**32) if first is None else first
    return range(start, start + count)

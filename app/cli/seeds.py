"""Seeds of pictures that are drawn one after the other."""

import secrets

from lorablend.adapters.errors import RequestError

__all__ = ["seeds"]

MAX_COUNT = 10_000


def seeds(first: int | None, count: int) -> range:
    """`count` seeds from `first` on, which None draws by chance: the same as `generate` gives to a batch.

    Pictures drawn one by one are the batch's own, and each can be saved before the next one is begun.
    """
    if not 1 <= count <= MAX_COUNT:
        raise RequestError(f"count is {count}; give 1 to {MAX_COUNT}")
    start = secrets.randbelow(2**32) if first is None else first
    return range(start, start + count)

"""What was made for recent blends, kept within a budget of memory."""

from collections import OrderedDict
from typing import Any

__all__ = ["TensorCache"]


class TensorCache:
    """Values by key, those used longest ago thrown out when they take more than `budget` bytes together."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._entries: OrderedDict[object, tuple[Any, object, int]] = OrderedDict()

    def get(self, key: object) -> Any | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: object, value: Any, size: int, alive: object) -> None:
        """size: of the value, in bytes. `alive` is what the key's ids belong to: it must outlive the entry."""
        self._entries[key] = (value, alive, size)
        while len(self._entries) > 1 and sum(size for _, _, size in self._entries.values()) > self._budget:
            self._entries.popitem(last=False)

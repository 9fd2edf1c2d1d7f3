"""A cache for the tensors of recent blends, within a budget of memory."""

from collections import OrderedDict
from typing import Any

__all__ = ["TensorCache"]


class TensorCache:
    """Values by key. When they take more than `budget` bytes together, those used longest ago are dropped."""

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
        """Keep a value of `size` bytes, and `alive`, the objects whose ids are in the key, as long as the entry."""
        self._entries[key] = (value, alive, size)
        while len(self._entries) > 1 and sum(size for _, _, size in self._entries.values()) > self._budget:
            self._entries.popitem(last=False)

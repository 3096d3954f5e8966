"""Things kept as long as there is room: the least recently used goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

_Kept = TypeVar("_Kept")


class Kept(Generic[_Kept]):
    """A dictionary of bounded number and size; any thread may use it.

    Args:
        most: entries.
        most_bytes: of all entries together, as they were said to be.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes, self._lock = most, most_bytes, threading.Lock()
        self._entries = OrderedDict[Hashable, tuple[_Kept, int]]()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> _Kept | None:
        """Give what is kept under a key, and take it for used; None where it is not."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: Hashable, value: _Kept, size: int) -> None:
        """Keep something of `size` bytes; the oldest go as far as need be, the new one too if it alone is too large."""
        with self._lock:
            self.bytes += size - self._entries.pop(key, (None, 0))[1]
            self._entries[key] = value, size
            while len(self._entries) > self._most or self.bytes > self._most_bytes:
                self.bytes -= self._entries.popitem(last=False)[1][1]
